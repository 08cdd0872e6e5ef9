"""A network namespace for every test, and what it takes to send packets between several."""

from __future__ import annotations

import ctypes
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

CLONE_NEWNET = 0x40000000
LIMIT_S = 10.0  # for what has to happen
QUIET_S = 0.4  # for what must not: on these links an answer takes less than a millisecond
_libc = ctypes.CDLL(None, use_errno=True)


def _must(code: int) -> None:
    if code:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def _here() -> int:
    return os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


class Namespace:
    """A network namespace of its own; inside `with`, this thread is in it."""

    def __init__(self) -> None:
        back = _here()
        try:
            _must(_libc.unshare(CLONE_NEWNET))
            self.fd = _here()
        finally:
            _must(_libc.setns(back, CLONE_NEWNET))
            os.close(back)
        self._back: list[int] = []
        self.ip("link set lo up")

    def __enter__(self) -> Namespace:
        self._back.append(_here())
        _must(_libc.setns(self.fd, CLONE_NEWNET))
        return self

    def __exit__(self, *_: object) -> None:
        back = self._back.pop()
        _must(_libc.setns(back, CLONE_NEWNET))
        os.close(back)

    @property
    def path(self) -> str:
        """What `ip … netns` takes."""
        return f"/proc/{os.getpid()}/fd/{self.fd}"

    def run(self, *command: str, text: str = "") -> str:
        """Run a program inside; it must succeed."""
        with self:
            print("$", *command, text)  # noqa: T201
            done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def ip(self, *lines: str) -> None:
        """Run lines of `ip -batch`."""
        self.run("ip", "-batch", "-", text="\n".join(lines))

    def sysctl(self, name: str, value: str) -> None:
        """Write a value; slashes in the name."""
        with self:
            Path("/proc/sys/net", name).write_text(value)

    def listen(self, port: int, udp: bool = False, ip: str = "0.0.0.0") -> socket.socket:
        """Open a server socket inside."""
        with self:
            server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        server.settimeout(LIMIT_S)
        server.bind((ip, port))
        if not udp:
            server.listen()
        return server

    def reach(self, server: socket.socket, ip: str, port: int, limit_s: float = LIMIT_S) -> str:
        """Send to an address and get an answer from that server: the source as the server sees it.

        Raises TimeoutError where packets are lost.
        """
        with self:
            client = socket.socket(socket.AF_INET, server.type)
        with client:
            client.settimeout(limit_s)
            client.connect((ip, port))
            if server.type == socket.SOCK_DGRAM:
                client.send(b"ping")
                server.settimeout(limit_s)
                question, source = server.recvfrom(100)
                server.sendto(b"pong", source)
            else:
                connection, source = server.accept()
                with connection:
                    client.send(b"ping")
                    question = connection.recv(100)
                    connection.send(b"pong")
            assert question == b"ping"
            assert client.recv(100) == b"pong"
            return str(source[0])

    def cannot_reach(self, server: socket.socket, ip: str, port: int) -> bool:
        """Whether packets to an address are lost without a word."""
        try:
            self.reach(server, ip, port, QUIET_S)
        except TimeoutError:
            return True
        return False

    def close(self) -> None:
        """Forget it; the kernel removes it with all its links."""
        os.close(self.fd)


class Lab:
    """Bridges, containers and neighbours around the host."""

    def __init__(self, host: Namespace, namespace: Callable[[], Namespace]) -> None:
        self.host = host
        self._namespace = namespace
        self._links = 0
        host.sysctl("ipv4/ip_forward", "1")

    def bridge(self, name: str, gateway: str) -> None:
        """Make a bridge as the plugin would."""
        self.host.ip(
            f"link add {name} type bridge",
            f"addr add {gateway} dev {name}",
            f"link set {name} up",
        )
        self.host.sysctl(f"ipv4/conf/{name}/route_localnet", "1")

    def container(self, bridge: str, ip: str, gateway: str, hairpin: bool = True) -> Namespace:
        """Make a namespace on a bridge."""
        made, link = self._attach(ip, f"veth{self._links}")
        self.host.ip(f"link set {link} master {bridge}")
        self.host.run("bridge", "link", "set", "dev", link, "hairpin", "on" if hairpin else "off")
        made.ip(f"route add default via {gateway}")
        return made

    def neighbour(self, link: str, own: str, ip: str) -> Namespace:
        """Make a namespace at the other end of one of the host's links."""
        made, _ = self._attach(ip, link)
        self.host.ip(f"addr add {own} dev {link}")
        return made

    def _attach(self, ip: str, link: str) -> tuple[Namespace, str]:
        self._links += 1
        made = self._namespace()
        self.host.ip(f"link add {link} up type veth peer name eth0 netns {made.path}")
        made.ip(f"addr add {ip} dev eth0", "link set eth0 up")
        return made, link
