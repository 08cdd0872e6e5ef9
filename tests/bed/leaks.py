"""What a host carries, written down before and after, and the difference in readable lines."""

import contextlib
import json
import re
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from tests.bed.host import Host
from tests.bed.waiting import WaitError, wait_for

_COUNTS = re.compile(r"\[\d+:\d+\]")
_LEGACY = {"iptables-legacy": "ip_tables_names", "ip6tables-legacy": "ip6_tables_names"}


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Lines like "link: docker0 bridge ...", each as often as it was seen."""

    lines: Counter[str]


def snapshot(host: Host) -> Snapshot:
    """Write down what a host carries: kernel, store, plugin processes and Docker's objects."""
    parts: dict[str, Callable[[Host], Iterable[str]]] = {
        "link": _links,
        "address": _addresses,
        "route": _routes,
        "rule": _rules,
        "nft": _nft,
        "iptables": _iptables,
        "row": _rows,
        "plugin": _plugin,
        "docker": _docker,
    }
    pairs = [f"{name}: {line}" for name, part in parts.items() for line in part(host)]
    return Snapshot(Counter(pairs))


def diff(before: Snapshot, after: Snapshot, ignore: Iterable[str] = ()) -> list[str]:
    """Return lines with "+" (new) and "-" (gone), sorted; empty when equal.

    `ignore` are shell patterns for whole lines without the sign, like "row: lease/*".
    """
    patterns = tuple(ignore)
    new, gone = after.lines - before.lines, before.lines - after.lines
    signed = [("+", line) for line in new.elements()] + [("-", line) for line in gone.elements()]
    signed.sort(key=lambda pair: (pair[1], pair[0]))
    return [
        f"{sign} {line}"
        for sign, line in signed
        if not any(fnmatch(line, pattern) for pattern in patterns)
    ]


def assert_no_leaks(
    host: Host, before: Snapshot, ignore: Iterable[str] = (), limit_s: float = 30
) -> None:
    """Wait until the host carries what it did; raises AssertionError with the difference."""
    patterns = tuple(ignore)
    left: list[str] = []

    def clean() -> bool:
        left[:] = diff(before, snapshot(host), patterns)
        return not left

    try:
        wait_for(clean, "no leaks", limit_s, every_s=0.3)
    except WaitError:
        text = "\n".join(left)
        raise AssertionError(f"{host.name} still differs after {limit_s:g} s:\n{text}") from None


def _json(host: Host, *argv: str) -> list[dict[str, Any]]:
    text = host.run(*argv).stdout.strip()
    found: list[dict[str, Any]] = json.loads(text) if text else []
    return [item for item in found if item]


def _links(host: Host) -> list[str]:
    lines = []
    for link in _json(host, "ip", "-j", "-d", "link", "show"):
        kind = link.get("linkinfo", {}).get("info_kind", "")
        up = "up" if "UP" in link.get("flags", ()) else "down"
        master = f" in {link['master']}" if "master" in link else ""
        lines.append(f"{link['ifname']} {kind} mtu {link['mtu']} {up}{master}")
    return lines


def _addresses(host: Host) -> list[str]:
    return [
        f"{one['local']}/{one['prefixlen']} on {link['ifname']}"
        for link in _json(host, "ip", "-j", "addr", "show")
        for one in link.get("addr_info", ())
        if not _own_ipv6(one["local"])
    ]


def _own_ipv6(text: str) -> bool:
    """Whether the kernel comes and goes with this by itself: link-local and multicast."""
    return text.startswith(("fe80:", "ff00:", "ff02:"))


def _routes(host: Host) -> list[str]:
    lines = []
    for family in ("-4", "-6"):
        for route in _json(host, "ip", "-j", family, "route", "show", "table", "all"):
            names = ("type", "dst", "gateway", "dev", "table", "protocol", "prefsrc", "metric")
            if not _own_ipv6(str(route.get("dst", ""))):
                flags = [flag for flag in route.get("flags", ()) if flag in ("onlink",)]
                words = [f"{name} {route[name]}" for name in names if name in route]
                lines.append(" ".join([*words, *flags]))
    return lines


def _rules(host: Host) -> list[str]:
    return [
        f"{family[1]} {json.dumps(rule, sort_keys=True)}"
        for family in ("-4", "-6")
        for rule in _json(host, "ip", "-j", family, "rule", "show")
    ]


def _nft(host: Host) -> list[str]:
    """One line for each table, chain, rule, set, and element of a set or map."""
    lines = []
    for item in json.loads(host.run("nft", "-s", "-j", "list", "ruleset").stdout)["nftables"]:
        [(kind, body)] = item.items()
        if kind == "metainfo":
            continue
        where = " ".join(body[key] for key in ("family", "table", "chain", "name") if key in body)
        elements = body.pop("elem", []) if kind in ("set", "map") else []
        lines.append(f"{kind} {where} {_stable(body)}")
        lines += [f"element {where} {_stable(element)}" for element in elements]
    return lines


def _stable(value: Any) -> str:
    return json.dumps(_plain(value), sort_keys=True)


def _plain(value: Any) -> Any:
    """Leave out handles, counts and what is left of timeouts."""
    if isinstance(value, dict):
        kept = value.keys() - {"handle", "index", "expires", "packets", "bytes"}
        return {key: _plain(value[key]) for key in kept}
    return [_plain(item) for item in value] if isinstance(value, list) else value


def _iptables(host: Host) -> list[str]:
    """List both variants; a legacy table is loaded by asking for it, so only those in use."""
    lines = []
    for name in ("iptables-nft", "ip6tables-nft"):
        lines += _saved(host, name)
    for name, proc in _LEGACY.items():
        if host.run("cat", f"/proc/net/{proc}", check=False).stdout.strip():
            lines += _saved(host, name)
    return lines


def _saved(host: Host, name: str) -> list[str]:
    table, lines = "", []
    for line in host.run(f"{name}-save").stdout.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif line.startswith((":", "-")):
            lines.append(f"{name} {table} {_COUNTS.sub('', line).strip()}")
    return lines


def _rows(host: Host) -> list[str]:
    file = Path(host.state_dir, "state.db")
    if not file.exists():
        return []
    with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=ro", uri=True)) as store:
        known = store.execute("SELECT 1 FROM sqlite_master WHERE name = 'record'").fetchall()
        rows = store.execute("SELECT kind, id, body FROM record").fetchall() if known else []
    return [f"{kind}/{name} {body}" for kind, name, body in rows]


def _plugin(host: Host) -> list[str]:
    pids, files, threads = host.plugin_pids(), 0, 0
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            files += len(list(Path(f"/proc/{pid}/fd").iterdir()))
            threads += len(list(Path(f"/proc/{pid}/task").iterdir()))
    return [f"{len(pids)} processes", f"{files} file descriptors", f"{threads} threads"]


def _docker(host: Host) -> list[str]:
    if host.dockerd is None or not host.dockerd.running():
        return []
    containers = host.docker("ps", "--all", "--quiet", "--no-trunc").stdout.split()
    networks = host.docker("network", "ls", "--quiet", "--no-trunc").stdout.split()
    return [f"container {one}" for one in containers] + [f"network {one}" for one in networks]
