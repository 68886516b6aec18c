"""Asks a running twemproxy which server owns a key, and prints one line for each configuration:

    ring twemproxy HASH SERVERS WEIGHTS PORTS DIGEST OWNERS...

Lines, weights and ports are those of libmemcached.c beside this file. The servers are threads of
this program at 127.10.(i/250).(i%250+1): each answers every key with its own number, so what comes
through the proxy says where the key went. WEIGHTS "named" gives the servers the names server-0,
server-1, ... and "tagged" hashes only what stands between { and } in user:{NUMBER}:profile.

Needs `nutcracker` in the PATH. The same lines, frozen, are tests/vectors/ring_twemproxy.txt.
"""

import asyncio
import os
import subprocess
import sys
import tempfile

sys.path.insert(0, os.path.join(os.path.dirname(__file__), ".."))
from free_ports import free_ports

KEYS = 200_000
SHOWN = 16
BATCH = 200
HASHES = ["one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32",
          "fnv1a_32", "hsieh", "murmur", "jenkins"]
SIZES = [1, 2, 4, 25, 50, 100]


def configurations():
    for hash_name in ["fnv1a_64", "md5"]:
        for size in SIZES:
            for weights in ["equal", "mixed"]:
                for ports in ["11211", "mixed"]:
                    yield hash_name, size, weights, ports
    for hash_name in HASHES:
        yield hash_name, 4, "named", "11211"
    yield "fnv1a_64", 25, "named", "mixed"
    yield "md5", 4, "tagged", "11211"


def host(at):
    return f"127.10.{at // 250}.{at % 250 + 1}"


def port_of(at, ports):
    return 11211 + (at % 3 if ports == "mixed" else 0)


def pool(number, listen, configuration):
    hash_name, size, weights, ports = configuration
    lines = [f"pool{number}:", f"  listen: 127.0.0.1:{listen}", f"  hash: {hash_name}",
             "  distribution: ketama", "  timeout: 20000", "  auto_eject_hosts: false"]
    if weights == "tagged":
        lines.append('  hash_tag: "{}"')
    lines.append("  servers:")
    for at in range(size):
        weight = 1 + at * 7 % 5 if weights == "mixed" else 1
        name = f" server-{at}" if weights == "named" else ""
        lines.append(f"   - {host(at)}:{port_of(at, ports)}:{weight}{name}")
    return "\n".join(lines) + "\n"


async def next_line(reader):
    """A line, or nothing at the end of the connection or of this program."""
    try:
        return await reader.readline()
    except asyncio.CancelledError:
        return b""


def answer_with(number):
    value = str(number)
    async def serve(reader, writer):
        while line := await next_line(reader):
            words = line.decode().split()
            if words[:1] == ["version"]:
                writer.write(b"VERSION 1.6.0\r\n")
                continue
            found = [f"VALUE {key} 0 {len(value)}\r\n{value}\r\n" for key in words[1:]]
            writer.write(("".join(found) + "END\r\n").encode())
            await writer.drain()
        writer.close()
    return serve


async def owners(listen, weights):
    reader, writer = await asyncio.open_connection("127.0.0.1", listen, limit=1 << 20)
    found = [None] * KEYS
    form = "user:{%d}:profile" if weights == "tagged" else "key-%d"
    for first in range(0, KEYS, BATCH):
        keys = [form % number for number in range(first, min(first + BATCH, KEYS))]
        number_of = {key: first + at for at, key in enumerate(keys)}
        writer.write(("get " + " ".join(keys) + "\r\n").encode())
        while (line := (await reader.readline()).decode()) != "END\r\n":
            assert line.startswith("VALUE "), line
            found[number_of[line.split()[1]]] = int(await reader.readline())
    writer.close()
    return found


def digest(found):
    value = 0xcbf29ce484222325
    for owner in found:
        value = ((value ^ owner) * 0x100000001b3) & 0xffffffffffffffff
    return value


async def run():
    for at in range(max(SIZES)):
        for port in {11211, port_of(at, "mixed")}:
            await asyncio.start_server(answer_with(at), host(at), port, limit=1 << 20)
    stats_port, *ports = free_ports(1 + len(list(configurations())))
    work = tempfile.TemporaryDirectory()
    with open(os.path.join(work.name, "conf.yml"), "w") as conf:
        for number, configuration in enumerate(configurations()):
            conf.write(pool(number, ports[number], configuration))
    proxy = subprocess.Popen(["nutcracker", "-c", conf.name, "-o", os.devnull, "-a", "127.0.0.1",
                              "-s", str(stats_port), "-m", "16384"])
    try:
        await wait_for(ports[-1], proxy)
        for number, configuration in enumerate(configurations()):
            found = await owners(ports[number], configuration[2])
            words = ["ring", "twemproxy", *map(str, configuration), f"{digest(found):016x}"]
            print(*words, *found[:SHOWN], flush=True)
    finally:
        proxy.terminate()
        proxy.wait()
        work.cleanup()


async def wait_for(port, proxy):
    for _ in range(100):
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.close()
            return
        except OSError:
            if proxy.poll() is not None:
                sys.exit("nutcracker ended: see its message above")
            await asyncio.sleep(0.1)
    sys.exit("nutcracker does not listen")


asyncio.run(run())
