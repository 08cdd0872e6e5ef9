"""Forget networks that Docker removed while the plugin was not running.

A thread asks Docker, outside any call, some seconds after its start or ours, then rarely. A network
is forgotten when two answers in a row, some seconds apart, leave it out.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from driver.api.admin import give_up
from driver.core.reconciler import Reconciler
from driver.errors import FlannelError
from driver.model.records import short

log = logging.getLogger(__name__)

SOON_S = 5.0  # from the start of dockerd or the plugin, and between two answers
AGAIN_S = 30.0  # after a question without an answer
SELDOM_S = 600.0
YOUNG_S = 60.0  # Docker lists a network a moment after we have made it


@dataclass(frozen=True, slots=True)
class Docker:
    """Functions that return dockerd's process id (0 if none runs), its networks, our links."""

    process: Callable[[], int]
    networks: Callable[[], frozenset[str]]
    links: Callable[[], frozenset[str]]


class OrphanNetworks:
    """Compares our networks with Docker's."""

    def __init__(
        self, core: Reconciler, docker: Docker, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._core, self._docker, self._clock = core, docker, clock
        self._settled = frozenset(core.state.networks)  # from before this process
        self._process = 0
        self._missing: dict[str, float] = {}

    def run(self, stop: threading.Event) -> None:
        """Look again and again, until `stop`."""
        pause_s = SOON_S
        while not stop.wait(pause_s):
            pause_s = self.look()

    def look(self) -> float:
        """Compare once; return the seconds until it is worth looking again."""
        process = self._docker.process()
        if process != self._process or not process:
            self._process, self._missing = process, {}
            return SOON_S  # it is starting
        try:
            listed = self._docker.networks()
            mine = self._core.state.networks
            if process != self._docker.process() or self._is_anothers(listed):
                self._missing = {}
                return SELDOM_S
            now = self._clock()
            self._missing = {i: self._missing.get(i, now) for i in mine if i not in listed}
            for network, since in self._missing.items():
                if now - since >= (SOON_S if network in self._settled else YOUNG_S):
                    self._forget(network)
        except (FlannelError, OSError) as error:
            log.debug("%s", error)
            self._missing = {}
            return AGAIN_S
        return SOON_S if self._missing else SELDOM_S

    def _is_anothers(self, listed: frozenset[str]) -> bool:
        """Whether another dockerd answered: a network with a running container is missing."""
        links = self._docker.links()
        return any(
            e.network not in listed and e.host_end in links
            for e in self._core.state.endpoints.values()
        )

    def _forget(self, network: str) -> None:
        with self._core.edit() as edit:
            found = edit.state.networks.get(network)
            if found is None or edit.state.endpoints_of(network):
                return  # a pass drops the remaining endpoints first
            give_up(edit, found)
        log.info("network %s is forgotten: Docker does not list it", short(network))
