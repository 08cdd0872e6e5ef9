"""Sends datagrams, 50 a second, and hears them.

`python drip.py send HOST PORT` prints a line for each; `python drip.py hear PORT` prints "ready",
then the time of each arrival in Unix seconds.
"""

from __future__ import annotations

import socket
import sys
import time
from contextlib import suppress


def send(host: str, port: int) -> None:
    """Send until killed."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        while True:
            with suppress(OSError):  # the kernel tells of a drop, or of a closed port
                sock.sendto(b"drip", (host, port))
            sys.stdout.write("sent\n")
            sys.stdout.flush()
            time.sleep(0.02)


def hear(port: int) -> None:
    """Receive until killed."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.bind(("", port))
        sys.stdout.write("ready\n")
        while True:
            sys.stdout.flush()
            sock.recv(100)
            sys.stdout.write(f"{time.time():.3f}\n")


if __name__ == "__main__":
    if sys.argv[1] == "send":
        send(sys.argv[2], int(sys.argv[3]))
    else:
        hear(int(sys.argv[2]))
