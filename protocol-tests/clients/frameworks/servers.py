"""Servers on free ports of 127.0.0.1, for as long as a test runs.

    servers.py SERVER COUNT COMMAND...    runs the command with HOST:PORT of each behind it, and in
                                          SERVER_PIDS their processes, so that it may end one
"""

import os
import pathlib
import socket
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))
from free_ports import free_ports  # noqa: E402


def wait_for(port, process):
    """Until somebody listens there."""
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10).close()
        except OSError:
            if process.poll() is not None:
                sys.exit(f"{process.args[0]} ended: see its message above")
            time.sleep(0.05)
    sys.exit(f"{process.args[0]} does not listen")


class Servers:
    """`count` of them, ended with the `with`."""

    def __init__(self, program, count):
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        self.ports = free_ports(count)
        self.processes = [
            subprocess.Popen([program, "-l", "127.0.0.1", "-p", str(port), "-m", "64", *user])
            for port in self.ports
        ]
        for port, process in zip(self.ports, self.processes):
            wait_for(port, process)

    def addresses(self):
        return [f"127.0.0.1:{port}" for port in self.ports]

    def end(self, index):
        self.processes[index].kill()
        self.processes[index].wait()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for index in range(len(self.processes)):
            self.end(index)


if __name__ == "__main__":
    with Servers(sys.argv[1], int(sys.argv[2])) as servers:
        pids = " ".join(str(process.pid) for process in servers.processes)
        done = subprocess.run([*sys.argv[3:], *servers.addresses()],
                              env={**os.environ, "SERVER_PIDS": pids})
    sys.exit(done.returncode)
