"""One TCP connection that answers every tenth of a second.

`python heartbeat.py serve PORT` returns each byte; `python heartbeat.py beat HOST PORT` prints
"ready", then the time of each answer in Unix seconds, and ends when the connection does.
"""

from __future__ import annotations

import socket
import sys
import time

LIMIT_S = 60.0


def serve(port: str) -> None:
    """Answer one client after the other."""
    with socket.create_server(("", int(port))) as listener:
        while True:
            client, _ = listener.accept()
            with client:
                while byte := client.recv(1):
                    client.sendall(byte)


def beat(host: str, port: str) -> None:
    """Ask until killed."""
    with socket.create_connection((host, int(port)), LIMIT_S) as server:
        server.settimeout(LIMIT_S)
        say("ready")
        while True:
            server.sendall(b".")
            assert server.recv(1) == b"."
            say(time.time())
            time.sleep(0.1)


def say(what: object) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{what}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    if sys.argv[1] == "serve":
        serve(sys.argv[2])
    else:
        beat(*sys.argv[2:])
