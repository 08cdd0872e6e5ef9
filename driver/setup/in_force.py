"""Which settings are in force, and which only will be after a restart."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from driver.config import SETTINGS, Config
from driver.errors import BadRequest
from driver.model.records import State
from driver.setup.sources import Sources

OURS = "DOCKER_FLANNEL_"  # what all variables of this plugin alone begin with
Document = dict[str, Any]


def document(sources: Sources, running: tuple[Config, State] | None = None) -> Document:
    """Return the settings of the service, for people and programs; secrets are masked.

    `sources`: as the service started, or now if none runs; `running`: its settings and state.
    Shape: {running, settings: [{variable, option, value, from, in_effect, note}], problems};
    `in_effect` is None without a service, `note` says why it is not, problems are sentences.
    """
    now = again(sources)
    unmet = _unmet(*running) if running else {}
    settings: list[Document] = []
    for s in SETTINGS:
        (value, origin), (then, from_then) = sources.value(s), now.value(s)
        note = unmet.get(s.option, "")
        if then != value:
            shown = _shown(then, secret=s.secret) or "none"
            note = f"from the next restart: {shown} ({from_then})"
        settings.append({
            "variable": s.variable,
            "option": None if s.secret else s.option,
            "value": _shown(value, secret=s.secret),
            "from": origin,
            "in_effect": not note if running else None,
            "note": note,
        })  # fmt: skip
    return {"running": bool(running), "settings": settings, "problems": list(_problems(now))}


def again(sources: Sources) -> Sources:
    """Return what sets the settings of a service that is restarted now: the files are read anew."""
    kept = {
        name: value
        for name, value in sources.environment.items()
        if sources.files.get(name, (None,))[0] != value
    }
    return Sources.read(sources.options, kept)


def _shown(value: str, *, secret: bool) -> str:
    return "(hidden)" if secret and value else value


def _problems(now: Sources) -> Iterator[str]:
    yield from now.faults
    try:
        Config.read(now.options, now.variables)
    except BadRequest as error:
        yield f"with these settings, the service would refuse all calls: {error}"
    known = {s.variable for s in SETTINGS}
    for name, (_, path) in now.files.items():
        if name.startswith(OURS) and name not in known:
            yield f"{path} sets {name}, which is no setting"


def _unmet(config: Config, state: State) -> Mapping[str, str]:
    """Return why settings of the lease do not apply, by option."""
    lease = state.lease
    if lease is None or not state.pools:
        return {}
    why = (
        f"networks use {lease.subnet} of {lease.network} from {lease.source}, so this is kept: "
        "`docker-flannel status` names them"
    )
    if config.lease != "auto":
        if lease.source != config.lease:
            return {"--lease": why}
    elif lease.source != "subnet-file" and config.follows_etcd != (lease.source == "etcd"):
        return {"--etcd-endpoints": why}
    return _other_prefix(config, state, why)


def _other_prefix(config: Config, state: State, why: str) -> Mapping[str, str]:
    lease = state.lease
    if lease is None or lease.source != "standalone":
        return {}
    unmet = {"--network": why} if lease.network != config.network else {}
    return unmet | ({"--subnet-len": why} if lease.subnet.prefixlen != config.subnet_len else {})
