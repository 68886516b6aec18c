"""Free ports of 127.0.0.1 for programs that must be told one.

They come from below the range that outgoing connections take theirs from, so that no client gets
one before the program has started, and from a block that this process reserves for as long as it
lives, as the package `ports` does. Run by itself, prints one, which is reserved no longer then.
"""

import contextlib
import random
import socket
import sys

FIRST = 15_000
BLOCK_PORTS = 50
BLOCKS = 340

RESERVATIONS = []


def free_ports(count):
    """Different ones."""
    ports = []
    for block in random.sample(range(BLOCKS), BLOCKS):
        reservation = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        try:
            reservation.bind(f"\0ports of 127.0.0.1/{block}")
        except OSError:
            reservation.close()
            continue
        RESERVATIONS.append(reservation)
        for port in range(FIRST + block * BLOCK_PORTS, FIRST + (block + 1) * BLOCK_PORTS):
            with contextlib.suppress(OSError), socket.socket() as probe:
                probe.bind(("127.0.0.1", port))
                ports.append(port)
            if len(ports) == count:
                return ports
    sys.exit("no free port")


if __name__ == "__main__":
    print(free_ports(1)[0])
