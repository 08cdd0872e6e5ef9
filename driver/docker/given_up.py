"""Start the containers whose start Docker gave up on because the plugin was away.

Docker tries a start once: when dockerd starts, or when a container has ended. It keeps why that
failed, and this is what is looked for, once the plugin serves and Docker answers. A container that
somebody stopped has no such error, since Docker does not try to start it.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from driver.docker.engine import Engine, Exited
from driver.errors import NO_BODY, Unavailable
from driver.standin import AWAY

log = logging.getLogger(__name__)

# those with which Docker starts a container on its own
POLICIES = ("always", "unless-stopped", "on-failure")
# what Docker tells of a call that did not reach the plugin, or broke off; and what the plugin tells
SIGNS = ('plugin "flannel" not found', "flannel.sock: connect: ", AWAY, NO_BODY)
AT_ONCE = 4  # starts
AGAIN_S = 5.0  # between two looks
LOOKS = 2  # a start may fail a moment after the plugin came back
PATIENCE_S = 120.0  # with a dockerd that is starting


def given_up(found: Iterable[Exited]) -> list[Exited]:
    """Return the containers that Docker would run if the plugin had been there."""
    return [
        made
        for made in found
        if made.policy in POLICIES and any(sign in made.error for sign in SIGNS)
    ]


class GivenUp:
    """Looks for such containers twice, and starts them.

    A start that fails for another reason leaves that as the container's error, so it is not tried
    again. Docker itself sees to it that two starts of one container do not meet.
    """

    def __init__(
        self,
        engine: Engine,
        process: Callable[[], int],
        tell: Callable[[tuple[str, ...]], None],
        again_s: float = AGAIN_S,
        patience_s: float = PATIENCE_S,
    ) -> None:
        """`process` returns dockerd's process id, 0 if none runs.

        `tell` gets a sentence for each container that was started.
        """
        self._engine, self._process, self._tell = engine, process, tell
        self._again_s, self._patience_s = again_s, patience_s

    def run(self) -> None:
        """Return when all is done, or nothing can be: a dockerd that starts later needs no help."""
        process, end, looks = self._process(), time.monotonic() + self._patience_s, 0
        while process and process == self._process():
            try:
                self._start(given_up(self._engine.exited()))
                looks += 1
            except Unavailable as error:
                if time.monotonic() > end:
                    log.warning("%s: `docker start` what it gave up on, see `docker ps -a`", error)
                    return
            if looks == LOOKS:
                return
            time.sleep(self._again_s)

    def _start(self, containers: list[Exited]) -> None:
        """Start them side by side, as Docker does."""
        with ThreadPoolExecutor(AT_ONCE) as pool:
            started = tuple(filter(None, pool.map(self._started, containers)))
        if started:
            self._tell(started)

    def _started(self, container: Exited) -> str:
        """Return what was done, "" if that failed."""
        try:
            self._engine.start(container.id)
        except Unavailable as error:
            log.warning("container %s does not start: %s", container.name, error)
            return ""
        done = f"started container {container.name}: it had failed without docker-flannel"
        log.info("%s", done)
        return done
