"""Asks Python's packages which server owns a key, and prints one line for each configuration:

    ring rendezvous - SERVERS KEYS PORTS DIGEST OWNERS...    pymemcache's HashClient
    ring jump HASH SERVERS KEYS PORTS DIGEST OWNERS...       jump-consistent-hash, of the hash of keys

Lines and ports are those of libmemcached.c beside this file, with 20,000 keys: key-0, key-1, ...
or, where KEYS is "unicode", keys of letters beyond ASCII. HASH is md5: the first four bytes of the
digest, the lowest first.

Needs the packages pymemcache and jump-consistent-hash. The same lines, frozen, are
tests/vectors/ring_python.txt.
"""

import hashlib

import jump
from pymemcache.client.hash import HashClient

KEYS = 20_000
SHOWN = 16
FORMS = {"equal": "key-%d", "unicode": "cl\u00e9-\u0436\u6f22\U0001f37a-%d"}


def keys(form):
    return (FORMS[form] % number for number in range(KEYS))


def servers(size, ports):
    return [(f"10.0.{at // 250}.{at % 250 + 1}", 11211 + (at % 3 if ports == "mixed" else 0))
            for at in range(size)]


def rendezvous(size, form, ports):
    hosts = servers(size, ports)
    client = HashClient(hosts)
    places = {client._make_client_key(host): at for at, host in enumerate(hosts)}
    return [places[client.hasher.get_node(key)] for key in keys(form)]


def jumps(size, form):
    for key in keys(form):
        yield jump.hash(int.from_bytes(hashlib.md5(key.encode()).digest()[:4], "little"), size)


def show(head, owners):
    owners = list(owners)
    digest = 0xcbf29ce484222325
    for owner in owners:
        digest = (digest ^ owner) * 0x100000001b3 & 0xffffffffffffffff
    print("ring", *head, f"{digest:016x}", *owners[:SHOWN])


for size in [1, 2, 4, 25]:
    for form in FORMS:
        for ports in ["11211", "mixed"]:
            show(["rendezvous", "-", size, form, ports], rendezvous(size, form, ports))
for size in [1, 2, 4, 25, 50, 1000]:
    for form in FORMS:
        show(["jump", "md5", size, form, "11211"], jumps(size, form))
