"""A membership in a thread, for tests on the fake and on the real etcd."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from ipaddress import IPv4Address, IPv4Network
from types import TracebackType
from typing import Any, Self

from driver.flannel.etcd.registry import Registry
from driver.flannel.lease_types import LeaseTimes, ThisHost
from driver.flannel.membership import Membership, MembershipStatus, Options
from driver.flannel.records import lease_value
from driver.model.records import Overlay, Peer, Vtep

PREFIX = "/coreos.com/network"
FOLDER = f"{PREFIX}/subnets/"
CONFIG_KEY = f"{PREFIX}/config"
CONFIG = '{"Network": "10.5.0.0/16", "Backend": {"Type": "vxlan"}}'
LIMIT_S = 60.0


def vtep(number: int) -> Vtep:
    """Return the address and MAC of a host."""
    return Vtep(IPv4Address(f"192.0.2.{number}"), f"02:00:00:00:00:{number:02x}")


def this_host(number: int) -> ThisHost:
    """Return a host as it sees itself."""
    return ThisHost(vtep(number).public_ip, vtep(number).mac)


def value(number: int) -> str:
    """Return the value of a host's lease."""
    host = vtep(number)
    return lease_value(host.public_ip, "vxlan", 1, host.mac)


def peer(number: int, subnet: str) -> Peer:
    """Return a host as others should see it."""
    host = vtep(number)
    return Peer(IPv4Network(subnet), host.public_ip, "vxlan", host.mac)


QUICK = {"tick_s": 0.02, "pause_s": 0.01, "burst_s": 0.02}


class Member:
    """A host's membership, running in a `with` block."""

    def __init__(
        self,
        registry: Registry,
        host: Vtep,
        known: MembershipStatus = MembershipStatus(),  # noqa: B008 - it is immutable
        times: LeaseTimes = LeaseTimes(),  # noqa: B008 - as above
        flanneld_sign: Callable[[Overlay], str] = lambda _overlay: "",
        **options: Any,
    ) -> None:
        self.seen: list[MembershipStatus] = []
        self.in_use = ""
        self._stop = threading.Event()
        self.membership = Membership(
            registry,
            PREFIX,
            ThisHost(host.public_ip, host.mac),
            known,
            in_use=lambda: self.in_use,
            changed=lambda: self.seen.append(self.now),
            flanneld_sign=flanneld_sign,
            options=Options(times=times, **{**QUICK, **options}),
        )
        self._thread = threading.Thread(target=self.membership.run, args=(self._stop,), daemon=True)

    @property
    def now(self) -> MembershipStatus:
        return self.membership.status()

    @property
    def subnet(self) -> IPv4Network:
        assert self.now.subnet is not None
        return self.now.subnet

    @property
    def key(self) -> str:
        return f"{PREFIX}/subnets/{self.subnet.network_address}-{self.subnet.prefixlen}"

    @property
    def phases(self) -> list[str]:
        """List the phases in order, without repetitions."""
        all_ = [s.phase for s in self.seen]
        return [s for n, s in enumerate(all_) if not n or s != all_[n - 1]]

    def until(self, phase: str, **fields: Any) -> MembershipStatus:
        """Wait for a phase and for fields of the status; fail after a minute."""
        return self.wait(
            lambda now: now.phase == phase and all(getattr(now, f) == v for f, v in fields.items()),
            f"{phase} {fields}",
        )

    def wait(self, true: Callable[[MembershipStatus], bool], what: str) -> MembershipStatus:
        end = time.monotonic() + LIMIT_S
        while not true(self.now):
            assert time.monotonic() < end, f"waited for {what}; it is {self.now}"
            time.sleep(0.005)
        return self.now

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._stop.set()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()


@contextmanager
def together(hosts: Sequence[Member]) -> Iterator[None]:
    """Run several hosts at the same time."""
    with ExitStack() as stack:
        for host in hosts:
            stack.enter_context(host)
        yield
