"""Values as Python's clients store them, and back.

    values.py write HOST PORT    stores the table with each client, keys like pymemcache:text
    values.py read HOST PORT     reads what the Rust client stored for each, and compares
"""

import sys

import memcache
import pylibmc
import pymemcache

TABLE = {
    "ascii": "football",
    "text": "Pel\u00e9",
    "empty": "",
    "integer": 42,
    "negative": -7,
    "large": 9007199254740993,
    "bytes": b"\x00\xff\r\n",
    "ascii_bytes": b"football",
    "digits": "42",
    "long": "x" * 5000,
}


def clients(host, port):
    serde = pymemcache.serde.CompressedSerde(min_compress_len=400)
    yield "pymemcache", pymemcache.Client((host, port), serde=serde), {}
    yield "pylibmc", pylibmc.Client([f"{host}:{port}"]), {"min_compress_len": 400}
    yield "python-memcached", memcache.Client([f"{host}:{port}"]), {"min_compress_len": 400}


mode, host, port = sys.argv[1], sys.argv[2], int(sys.argv[3])
for name, client, options in clients(host, port):
    for key, value in TABLE.items():
        if mode == "write":
            assert client.set(f"{name}:{key}", value, **options), (name, key)
        else:
            found = client.get(f"rust:python:{key}")
            assert found == value and type(found) is type(value), (name, key, found)
    print(f"{name}: {len(TABLE)} values {'stored' if mode == 'write' else 'read'}")
