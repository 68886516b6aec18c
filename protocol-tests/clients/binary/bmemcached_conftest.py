"""What the tests that python-binary-memcached brings along expect around them: servers.

Their own conftest.py is not part of the package. Put beside them under that name; DAEMON is the
server's path, MEMCACHED_HOST an address of this machine whose ports 11211 and 5000 are free, and
SOCKET where the tests look for a Unix socket. Servers end with the session.
"""

import os
import socket
import subprocess
import time

import pytest

DAEMON, HOST, SOCKET = (os.environ[name] for name in ("DAEMON", "MEMCACHED_HOST", "SOCKET"))
PATIENCE_SECONDS = 20
USER, PASSWORD = "app", "secret"


def free_port(family, host):
    with socket.socket(family) as one:
        one.bind((host, 0))
        return one.getsockname()[1]


IPV6_PORT = free_port(socket.AF_INET6, "::1")


def served(family, address, *flags):
    """A server, once it takes connections."""
    server = subprocess.Popen([DAEMON, "-u", "root", "-U", "0", *flags])
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            with socket.socket(family) as probe:
                if probe.connect_ex(address) == 0:
                    break
            assert server.poll() is None and time.monotonic() < deadline, "no server"
            time.sleep(0.02)
        yield server
    finally:
        server.kill()
        server.wait()


@pytest.fixture(scope="session", autouse=True)
def memcached_standard_port():
    yield from served(socket.AF_INET, (HOST, 11211), "-l", HOST, "-p", "11211")


@pytest.fixture(scope="session", autouse=True)
def memcached_other_port():
    yield from served(socket.AF_INET, (HOST, 5000), "-l", HOST, "-p", "5000")


@pytest.fixture(scope="session", autouse=True)
def memcached_socket():
    yield from served(socket.AF_UNIX, SOCKET, "-s", SOCKET)


@pytest.fixture(scope="session")
def memcached_ipv6():
    yield from served(socket.AF_INET6, ("::1", IPV6_PORT), "-l", "::1", "-p", str(IPV6_PORT))


@pytest.fixture(scope="session")
def memcached_sasl(tmp_path_factory):
    users = tmp_path_factory.mktemp("sasl") / "users"
    users.write_text(f"{USER}:{PASSWORD}\n")
    host, port = "127.0.0.1", free_port(socket.AF_INET, "127.0.0.1")
    flags = ("-S", "-Y", str(users), "-l", host, "-p", str(port))
    for _ in served(socket.AF_INET, (host, port), *flags):
        yield port, USER, PASSWORD
