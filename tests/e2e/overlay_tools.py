"""Tools that run in a container's network namespace: senders, receivers, watchers.

As a program: `python -m tests.e2e.overlay_tools TOOL ...`; TOOLS lists them.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import json
import socket
import struct
import sys
import threading
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress

from tests.e2e.overlay import LEASES, TCP


def digest(port: str) -> None:
    """Answer a TCP stream and each UDP datagram with its SHA-256."""
    with socket.socket(type=socket.SOCK_DGRAM) as udp, socket.create_server(("", int(port))) as tcp:
        udp.bind(("", int(port)))
        threading.Thread(target=_datagrams, args=(udp,), daemon=True).start()
        _say("ready")
        while True:
            client, _ = tcp.accept()
            with client:
                summed = hashlib.sha256()
                while data := client.recv(1 << 20):
                    summed.update(data)
                client.sendall(summed.hexdigest().encode())


def _datagrams(udp: socket.socket) -> None:
    while True:
        data, peer = udp.recvfrom(65535)
        udp.sendto(hashlib.sha256(data).hexdigest().encode(), peer)


def stream(host: str, port: str, mebibytes: str) -> None:
    """Send over TCP to a digest server; print whether its answer is right, and the rate."""
    block, summed, begin = bytes(range(256)) * 4096, hashlib.sha256(), time.monotonic()
    with socket.create_connection((host, int(port)), 20) as sock:
        for number in range(int(mebibytes)):
            data = number.to_bytes(4, "big") + block[4:]
            summed.update(data)
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        answer = sock.recv(64, socket.MSG_WAITALL).decode()
    rate = int(mebibytes) / (time.monotonic() - begin)
    _say("whole" if answer == summed.hexdigest() else "broken", f"{rate:.0f} MiB/s")


def datagram(host: str, port: str, size: str, whole: str = "") -> None:
    """Send to a digest server, with `whole` not in fragments; print what became of it."""
    with socket.socket(type=socket.SOCK_DGRAM) as sock:
        sock.settimeout(5)
        if whole:
            sock.setsockopt(socket.IPPROTO_IP, 10, 2)  # IP_MTU_DISCOVER: IP_PMTUDISC_DO
        data = bytes(number % 251 for number in range(int(size)))
        try:
            sock.connect((host, int(port)))
            sock.send(data)
            answer = sock.recv(64).decode()
        except OSError as error:
            answer = str(error)
    _say("whole" if answer == hashlib.sha256(data).hexdigest() else answer)


def capture(device: str) -> None:
    """Print the IPv4 packets on a device: how they go, their VNI, source and destination."""
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3)) as sock:
        sock.bind((device, 0))
        _say("ready")
        while True:
            frame = sock.recv(65535)
            if frame[12:14] == b"\x08\x00":
                _packet(frame[14:])


def _packet(packet: bytes) -> None:
    data = packet[4 * (packet[0] & 15) :]
    if packet[9] == socket.IPPROTO_UDP and struct.unpack_from("!H", data, 2) == (8472,):
        inner = data[8 + 8 + 14 :]
        _say("vxlan", int.from_bytes(data[12:15], "big"), *_ends(packet), *_ends(inner))
    else:
        _say("plain", *_ends(packet))


def _ends(packet: bytes) -> tuple[str, str]:
    return socket.inet_ntoa(packet[12:16]), socket.inet_ntoa(packet[16:20])


def newcomer(url: str, *address: str) -> None:
    """Wait for a new lease; print how many seconds later its host, or an address, is reached."""
    known = _leases(url)
    _say("ready")
    while not (new := _leases(url) - known):
        time.sleep(0.01)
    begin, target = time.monotonic(), (*address, new.pop())[0]
    while True:
        with suppress(OSError), socket.socket() as sock:
            sock.settimeout(0.1)
            if sock.connect_ex((target, TCP)) in (0, errno.ECONNREFUSED):  # an answer, too
                return _say(f"{time.monotonic() - begin:.3f}")
        time.sleep(0.01)


def _leases(url: str) -> set[str]:
    begin, end = (base64.b64encode(f"{LEASES[:-1]}{c}".encode()).decode() for c in "/0")
    body = json.dumps({"key": begin, "range_end": end, "keys_only": True}).encode()
    with urllib.request.urlopen(f"{url}/v3/kv/range", body, 5) as answer:  # noqa: S310 - http
        found = json.load(answer).get("kvs", [])
    return {base64.b64decode(kv["key"]).decode().rpartition("/")[2].split("-")[0] for kv in found}


def _say(*words: object) -> None:
    sys.stdout.write(" ".join(map(str, words)) + "\n")
    sys.stdout.flush()


TOOLS: dict[str, Callable[..., None]] = {
    tool.__name__: tool for tool in (digest, stream, datagram, capture, newcomer)
}

if __name__ == "__main__":
    TOOLS[sys.argv[1]](*sys.argv[2:])
