"""Free ports of 127.0.0.1 for programs that must be told one. Run by itself, prints one.

They come from below the range that outgoing connections take theirs from, so that no client gets
one before the program has started.
"""

import contextlib
import random
import socket
import sys


def free_ports(count):
    """Different ones."""
    ports = []
    for port in random.sample(range(15_000, 32_000), 5_000):
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            ports.append(port)
        if len(ports) == count:
            return ports
    sys.exit("no free port")


if __name__ == "__main__":
    print(free_ports(1)[0])
