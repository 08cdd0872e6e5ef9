"""Looks for a flanneld on this host: its device, and its process."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from driver.host.netlink.channel import Channel
from driver.host.netlink.decoder import read_vxlan
from driver.model.facts import Flanneld

NAME = b"flanneld\n"
PROCESSES = Path("/proc")
RESTART_S = 20.0  # how long a flanneld may be away while it restarts


class FlanneldProbe:
    """Looks in the network namespace of the thread that makes it."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._channel, self._clock = Channel(), clock
        self._here = _namespace("thread-self")
        self._process, self._until = 0, 0.0

    def close(self) -> None:
        """Close the socket."""
        self._channel.close()

    def look(self) -> Flanneld:
        """Return what is there now. A process counts for some seconds after its end."""
        vxlans = self._channel.links("vxlan").values()
        now, found = self._clock(), next(self._processes(), 0)
        if found:
            self._process, self._until = found, now + RESTART_S
        elif now >= self._until:
            self._process = 0
        return Flanneld(
            frozenset((v.name, *read_vxlan(v)[:2]) for v in vxlans if not v.ours),
            frozenset((link.name, link.mac) for link in vxlans if link.ours),
            self._process,
        )

    def _processes(self) -> Iterator[int]:
        """Yield root's processes called flanneld; a managed plugin sees only its own processes."""
        for folder in os.listdir(PROCESSES):  # noqa: PTH208 - a Path for each takes ten times as long
            if not folder.isdigit():
                continue
            try:
                with open(f"{PROCESSES}/{folder}/comm", "rb") as file:  # noqa: PTH123 - as above
                    named = file.read() == NAME
                if named and _is_roots(folder) and _namespace(folder) == self._here:
                    yield int(folder)
            except OSError:
                continue  # it has ended


def _is_roots(process: str) -> bool:
    """Whether root runs a process: any user's could have that name and stop our renewals.

    The owner of its folder does not show that: root owns some folders of others' processes.
    """
    lines = (PROCESSES / process / "status").read_text(errors="replace").splitlines()
    ids = [line.split()[2] for line in lines if line.startswith("Uid:")]
    return ids == ["0"]  # the effective one


def _namespace(process: str) -> int:
    """Return a number that only processes in the same network namespace share.

    `/proc/PID/ns/net` needs more rights than a service should have; a file in `net` is the same
    only in the same namespace.
    """
    return (PROCESSES / process / "net" / "dev").stat().st_ino
