"""twemproxy in front of several servers: what a client stores through it is read back, spread over
all of them, and stays reachable when one of them is away.

    twemproxy_front.py SERVER      SERVER: a program that takes memcached's flags

Needs `nutcracker` in the PATH. Servers and proxy listen on free ports of 127.0.0.1.
"""

import os
import socket
import subprocess
import sys
import tempfile
import time

from free_ports import free_ports

INSTANCES = 3
KEYS = 300
VALUE_BYTES = 2_000


def connect(port, process):
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10)
        except OSError:
            if process.poll() is not None:
                sys.exit(f"{process.args[0]} ended: see its message above")
            time.sleep(0.05)
    sys.exit(f"{process.args[0]} does not listen")


def ask(client, request, end):
    client.sendall(request)
    received = b""
    while not received.endswith(end):
        more = client.recv(1 << 16)
        if not more:
            sys.exit(f"{request[:60]!r}: closed after {received[:200]!r}")
        received += more
    return received


def get(client, number):
    """The reply to a get: with the value, without, or an error of the proxy."""
    client.sendall(b"get %s\r\n" % key(number))
    received = b""
    while not received.endswith(b"END\r\n"):
        more = client.recv(1 << 16)
        if not more:
            sys.exit(f"get: closed after {received[:200]!r}")
        received += more
        if received.startswith(b"SERVER_ERROR") and received.endswith(b"\r\n"):
            break
    return received


def value(number):
    return (f"{number}:" * VALUE_BYTES)[:VALUE_BYTES].encode()


def key(number):
    return f"user:{number}".encode()


def store_and_read(client):
    for number in range(KEYS):
        request = b"set %s 7 0 %d\r\n%s\r\n" % (key(number), VALUE_BYTES, value(number))
        assert ask(client, request, b"\r\n") == b"STORED\r\n", number
    for first in range(0, KEYS, 50):
        numbers = range(first, first + 50)
        found = ask(client, b"get " + b" ".join(map(key, numbers)) + b"\r\n", b"END\r\n")
        for number in numbers:
            item = b"VALUE %s 7 %d\r\n%s\r\n" % (key(number), VALUE_BYTES, value(number))
            assert item in found, number
    assert ask(client, b"set n 0 0 1\r\n5\r\n", b"\r\n") == b"STORED\r\n"
    assert ask(client, b"incr n 37\r\n", b"\r\n") == b"42\r\n"
    assert ask(client, b"append n 0 0 1\r\n0\r\n", b"\r\n") == b"STORED\r\n"
    token = ask(client, b"gets n\r\n", b"END\r\n").split()[4]
    assert ask(client, b"cas n 0 0 1 %s\r\n1\r\n" % token, b"\r\n") == b"STORED\r\n"
    assert ask(client, b"cas n 0 0 1 %s\r\n2\r\n" % token, b"\r\n") == b"EXISTS\r\n"
    assert ask(client, b"touch n 100\r\n", b"\r\n") == b"TOUCHED\r\n"
    assert ask(client, b"delete n\r\n", b"\r\n") == b"DELETED\r\n"
    assert ask(client, b"get n\r\n", b"END\r\n") == b"END\r\n"


def items(port, process):
    with connect(port, process) as client:
        lines = ask(client, b"stats\r\n", b"END\r\n").decode().splitlines()
    return next(int(line.split()[2]) for line in lines if line.startswith("STAT curr_items "))


def main(program):
    stats, listen, *ports = free_ports(2 + INSTANCES)
    user = ["-u", "nobody"] if os.getuid() == 0 else []
    processes = []
    with tempfile.NamedTemporaryFile("w", suffix=".yml") as conf:
        servers = "".join(f"   - 127.0.0.1:{port}:1\n" for port in ports)
        conf.write(f"front:\n  listen: 127.0.0.1:{listen}\n  hash: md5\n"
                   "  distribution: ketama\n  timeout: 5000\n  auto_eject_hosts: true\n"
                   "  server_failure_limit: 1\n  server_retry_timeout: 600000\n"
                   f"  servers:\n{servers}")
        conf.flush()
        try:
            for port in ports:
                flags = ["-l", "127.0.0.1", "-p", str(port), "-t", "1", "-m", "64", *user]
                processes.append(subprocess.Popen([program, *flags]))
            for port, process in zip(ports, processes):
                connect(port, process).close()
            proxy = subprocess.Popen(["nutcracker", "-c", conf.name, "-o", os.devnull, "-a",
                                      "127.0.0.1", "-s", str(stats)])
            processes.append(proxy)
            with connect(listen, proxy) as client:
                store_and_read(client)
                held = [items(port, process) for port, process in zip(ports, processes)]
                assert sum(held) == KEYS and min(held) > KEYS / 10, held
                # One is away: after the call that notices, its keys go to the others.
                processes[0].kill()
                processes[0].wait()
                for number in range(KEYS):
                    replies = [get(client, number), get(client, number)]
                    assert not replies[1].startswith(b"SERVER_ERROR"), (number, replies)
        finally:
            for process in processes:
                process.kill()
                process.wait()
    print(f"twemproxy: {KEYS} keys through it, on {INSTANCES} servers: {held}; one away")


main(sys.argv[1])
