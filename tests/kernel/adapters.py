"""What the tests of several adapters ask: refusals, and what is reported of changes."""

import threading
import time
from pathlib import Path

import pytest

from driver.host.netlink.constants import GROUP
from tests.kernel.namespaces import LIMIT_S


class Listener:
    """Runs `watch` in a thread. A link that comes and goes tells that all before was read."""

    def __init__(self, netlink):
        self._netlink, self._stop, self._names = netlink, threading.Event(), []
        self._said = threading.Condition()
        self._thread = threading.Thread(target=netlink.watch, args=(self._changed, self._stop))

    def _changed(self, names):
        with self._said:
            self._names.append(names)
            self._said.notify_all()

    def __enter__(self):
        self._thread.start()
        return self

    def __exit__(self, *_):
        self._stop.set()
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive()

    def wait(self, name):
        with self._said:
            assert self._said.wait_for(lambda: name in self._so_far(), LIMIT_S), self._names

    def _so_far(self):
        return frozenset().union(*self._names)

    def after(self, host):
        """Return what was reported, once all that has happened is read; and forget it."""
        while not self._so_far() & {"flhmarker"}:  # the thread may not listen yet
            host.ip(
                f"link add flhmarker group {GROUP} up type veth peer name marker",
                "link del flhmarker",
            )
            with self._said:
                self._said.wait_for(lambda: "flhmarker" in self._so_far(), 0.2)
        with self._said:
            names = self._so_far() - {"flhmarker"}
            self._names.clear()
        return names


def eventually(true):
    limit = time.monotonic() + LIMIT_S
    while not true():
        assert time.monotonic() < limit, "did not come true"
        time.sleep(0.01)


def refusals(adapter, plan):
    with pytest.raises(ExceptionGroup) as caught:
        adapter.apply(plan)
    return [str(error) for error in caught.value.exceptions]


def facts_of(links):
    """Return the facts that this adapter knows."""
    return links.facts(links.surroundings())


def drops(host):
    """Count what the namespace's netlink sockets could not take."""
    with host:
        lines = Path("/proc/thread-self/net/netlink").read_text().splitlines()
    return sum(int(line.split()[8]) for line in lines[1:])
