"""Carries out a step of the migration."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from driver.config import Config
from driver.errors import Conflict, FlannelError, HostError, Unavailable
from driver.flannel.etcd.registry import KeyRange, Registry
from driver.flannel.etcd.settings import EtcdSettings
from driver.flannel.network_config import read_config
from driver.flannel.records import config_key, lease_key, lease_range, read_lease
from driver.ipam import DOCKER0
from driver.setup.commands import run
from driver.setup.migration.found import Found
from driver.setup.migration.look import UNITS, Look
from driver.setup.migration.record import Record
from driver.setup.migration.step import REPLACE, Step
from driver.setup.migration.steps import settings_of, steps

LIMIT_S = 120.0
RUN_S = 300.0  # dockerd may wait long for containers that do not stop
EVERY_S = 0.2
HELD = ("held", "moved", "renewing")


@dataclass(frozen=True, slots=True)
class Workplace:
    """What carrying out needs: `state` is the state folder; `say` tells the user what is done."""

    look: Look
    state: Path
    registry: Callable[[EtcdSettings], Registry]
    say: Callable[[str], None]

    def step(self, name: str) -> tuple[Found, Step]:
        """Return what there is, and the step of that name for it. Errors: HostError."""
        found = self.look.found()
        return found, next(step for step in steps(found) if step.name == name)

    def run(self, commands: Iterable[tuple[str, ...]]) -> None:
        """Run commands, and tell each before. Errors: HostError."""
        for words in commands:
            if words[:2] == ("systemctl", "stop") and words[2] in UNITS:
                self._check_alone(words[2])
            self.say(f"run {shlex.join(words)}")
            run(*words, limit_s=RUN_S)

    def _check_alone(self, unit: str) -> None:
        """Check that stopping a unit does not stop Docker. Errors: HostError."""
        docker = self.look.found().docker
        if docker and unit in docker.needs:
            raise HostError(
                f"docker.service needs {unit} by Requires=, BindsTo= or PartOf=, and would be "
                "stopped with it: remove that, and run the same command again"
            )

    def docker_back(self) -> Found:
        """Wait until Docker answers, and return what is there then. Errors: Unavailable."""
        return self.wait("Docker", lambda now: "" if now.docker else "dockerd does not run")

    def wait(self, what: str, condition: Callable[[Found], str]) -> Found:
        """Wait until a condition returns ""; else it returns what is still wrong.

        Errors: Unavailable.
        """
        end = time.monotonic() + LIMIT_S
        while True:
            try:
                found = self.look.found()
                wrong = condition(found)
            except FlannelError as error:  # Docker is starting
                wrong = str(error)
            if not wrong:
                return found
            if time.monotonic() > end:
                raise Unavailable(f"{what} is not there after {LIMIT_S:.0f} s: {wrong}")
            time.sleep(EVERY_S)


def carry_out(place: Workplace, name: str, *, force: bool) -> None:
    """Carry out a step, or what is left of it.

    Errors: Conflict if it cannot be done now, before anything is changed; FlannelError if something
    fails on the way: the same call goes on from there.
    """
    record = Record.of(place.state, name)
    if record.containers:  # a call that broke off may have left Docker on its way
        place.docker_back()
    found, step = place.step(name)
    if step.done and (record.finished or not record.folder.exists()):
        place.say(f"nothing to do: {step.done}")
        return
    if not step.done:
        _change(place, found, step, record, force=force)
    start_again(place, record)
    if name == REPLACE:
        place.wait("the lease", _not_taken_over)
        place.run(place.step(name)[1].last)  # a flanneld may have removed some itself at its end
    found, step = place.step(name)
    if not step.done:
        raise Unavailable(f"{name} is not done yet: {step.hindrance or _state(found)}")
    record.finished, record.containers = True, []
    record.save()
    place.say(f"done: {step.done}")


def _change(place: Workplace, found: Found, step: Step, record: Record, *, force: bool) -> None:
    """Change the files and run the commands. Errors: FlannelError."""
    if step.hindrance and not (force and step.commands):
        raise Conflict(f"{step.name} cannot be done now: {step.hindrance}")
    if step.name == REPLACE:
        check_etcd(found, place.registry)
    record.finished = False
    record.containers = sorted({*record.containers, *step.start})
    record.prefix = record.prefix or str(found.held or "")
    record.change(step.changes)
    for path in step.changes:
        place.say(f"changed {path}; as it was it is in {record.folder}")
    place.run(step.commands)


def start_again(place: Workplace, record: Record) -> None:
    """Start the containers that ran before and do not run now. Errors: HostError naming them."""
    docker = place.docker_back().docker
    assert docker is not None  # noqa: S101 - waited for
    running = {c.name for c in docker.running}
    there = {c.name for c in docker.containers}
    failed = []
    for name in record.containers:
        if name in there - running:
            try:
                place.run([("docker", "start", name)])
            except HostError as error:
                failed.append(str(error))
    if failed:
        raise HostError("; ".join(failed))


def check_etcd(found: Found, registry: Callable[[EtcdSettings], Registry]) -> None:
    """Check that etcd has this host's lease under flanneld's settings. Errors: FlannelError."""
    etcd = Config.read({}, settings_of(found)).etcd
    assert etcd is not None  # noqa: S101 - the step has checked
    asked = registry(etcd)
    try:
        config, _ = asked.read(KeyRange(config_key(etcd.prefix)))
        subnet = found.subnet
        assert subnet is not None  # noqa: S101 - the step has checked
        key = f"{lease_range(etcd.prefix)}/{lease_key(subnet)}"
        leases, _ = asked.read(KeyRange(key))
    except FlannelError as error:
        raise Conflict(f"nothing was changed, since etcd cannot be asked: {error}") from error
    if not config or config[0].value is None:
        raise Conflict(
            f"nothing was changed: etcd has no network config at {config_key(etcd.prefix)}"
        )
    read_config(config[0].value.decode())
    if not leases or leases[0].value is None:
        raise Conflict(f"nothing was changed: etcd has no lease of {subnet} at {key}")
    mac = read_lease(key, leases[0].value, leases[0].revision).mac
    if found.device and mac != found.device.mac:
        raise Conflict(
            f"nothing was changed: the lease of {subnet} in etcd has the MAC {mac}, but "
            f"{found.device.name} has {found.device.mac}: restart flanneld first"
        )


def _not_taken_over(found: Found) -> str:
    """Return what is missing until this plugin has flanneld's lease and reaches all its peers."""
    status = found.status
    if status is None:
        return "this plugin does not answer"
    if found.source != "etcd" or status["phase"] not in HELD:
        return f"{status['phase']}: {'; '.join(status['problems'])}"
    peers = {peer["subnet"] for peer in status["peers"]}
    missing = {words[0] for words in found.routes} & peers - found.reached
    return f"no route to {', '.join(sorted(missing))} yet" if missing else ""


def _state(found: Found) -> str:
    return f"{DOCKER0} has {found.held or 'nothing'} of the lease {found.subnet}"
