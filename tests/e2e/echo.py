"""A server that answers each client with the address it sees, and its client.

`python echo.py serve tcp|udp PORT`, `python echo.py ask tcp|udp HOST PORT SECONDS [OWN-PORT]`.
And one connection that lasts: `python echo.py lines PORT`, `python echo.py talk HOST PORT`.
"""

from __future__ import annotations

import socket
import sys
import time


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


def lines(port: int) -> None:
    """Send one client its lines back until it goes."""
    with socket.create_server(("", port)) as sock, sock.accept()[0] as client:
        while data := client.recv(100):
            client.sendall(data)


def talk(host: str, port: int) -> None:
    """Send a line five times a second, and print what comes back; end when nothing does."""
    with socket.create_connection((host, port), 30) as sock:
        while True:
            sock.sendall(b"line\n")
            sys.stdout.write(sock.recv(100).decode())
            sys.stdout.flush()
            time.sleep(0.2)


if __name__ == "__main__":
    if sys.argv[1] == "lines":
        lines(int(sys.argv[2]))
    elif sys.argv[1] == "talk":
        talk(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1] == "serve":
        serve(sys.argv[2], int(sys.argv[3]))
    else:
        ask(sys.argv[2], sys.argv[3], int(sys.argv[4]), float(sys.argv[5]), *map(int, sys.argv[6:]))
