"""Drives pymemcache and Python's ssl over TLS.

    tls_clients.py HOST PORT CERTIFICATE
"""

import os
import socket
import ssl
import sys

from pymemcache.client.base import Client

HOST, PORT, CERTIFICATE = sys.argv[1], int(sys.argv[2]), sys.argv[3]
LARGE = os.urandom(1_000_000)


def context(version):
    made = ssl.create_default_context(cafile=CERTIFICATE)
    made.minimum_version = made.maximum_version = version
    return made


def pymemcache(version):
    client = Client((HOST, PORT), timeout=10, connect_timeout=10, tls_context=context(version))
    client.flush_all(noreply=False)
    assert client.set("k", LARGE, noreply=False) is True
    assert client.get("k") == LARGE
    assert client.set_many({f"m{at}": str(at) for at in range(500)}, noreply=False) == []
    found = client.get_many([f"m{at}" for at in range(500)])
    assert found == {f"m{at}": str(at).encode() for at in range(500)}
    assert client.incr("m7", 5, noreply=False) == 12
    assert int(client.stats()[b"ssl_handshake_errors"]) == 0
    client.quit()


def plain_ssl(version):
    client = context(version).wrap_socket(
        socket.create_connection((HOST, PORT), timeout=10), server_hostname=HOST
    )
    with client.makefile("rwb") as lines:
        # Many large answers before the first is read.
        lines.write(b"set k 0 0 %d\r\n%s\r\n" % (len(LARGE), LARGE) + b"get k\r\n" * 20 + b"quit\r\n")
        lines.flush()
        assert lines.readline() == b"STORED\r\n"
        for _ in range(20):
            assert lines.readline() == b"VALUE k 0 1000000\r\n"
            assert lines.read(len(LARGE) + 2) == LARGE + b"\r\n"
            assert lines.readline() == b"END\r\n"
        assert lines.read() == b""
    assert client.version() == {"TLSv1_2": "TLSv1.2", "TLSv1_3": "TLSv1.3"}[version.name]
    client.unwrap()


def refused():
    """Somebody who does not know the certificate does not talk, and the server goes on."""
    try:
        ssl.create_default_context().wrap_socket(
            socket.create_connection((HOST, PORT), timeout=10), server_hostname=HOST
        )
    except ssl.SSLCertVerificationError:
        return
    raise AssertionError("the certificate is not one that everybody knows")


for tls in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
    pymemcache(tls)
    plain_ssl(tls)
refused()
print("TLS: pymemcache and ssl passed, in two versions")
