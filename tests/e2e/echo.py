"""A server that answers each client with the address it sees, and its client.

`python echo.py serve tcp|udp PORT`, `python echo.py ask tcp|udp HOST PORT SECONDS [OWN-PORT]`.
"""

from __future__ import annotations

import socket
import sys


def serve(kind: str, port: int) -> None:
    """Answer until killed."""
    with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as sock:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(("", port))
        if kind == "udp":
            while True:
                _, peer = sock.recvfrom(100)
                sock.sendto(peer[0].encode(), peer)
        sock.listen()
        while True:
            client, peer = sock.accept()
            with client:
                client.sendall(peer[0].encode())


def ask(kind: str, host: str, port: int, limit_s: float, own: int = 0) -> None:
    """Print the answer; OSError when none comes."""
    with socket.socket(type=socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as sock:
        sock.settimeout(limit_s)
        sock.bind(("", own))
        sock.connect((host, port))
        sock.send(b"who am I?")
        sys.stdout.write(sock.recv(100).decode())


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        ask(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), *map(int, sys.argv[6:]))
