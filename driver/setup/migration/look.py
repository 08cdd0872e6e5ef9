"""Finds what there is of flanneld and of Docker on this host. It changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPException
from ipaddress import IPv4Interface, IPv4Network
from itertools import zip_longest
from pathlib import Path
from shutil import which
from typing import Any

from driver.config import SETTINGS
from driver.docker import engine
from driver.docker.unix_http import request
from driver.errors import FlannelError, HostError, Unavailable
from driver.files import read_file, text_of
from driver.flannel.subnet_env import read_subnet_file
from driver.ipam import DOCKER0
from driver.model.records import ALIAS_PREFIX, FLANNEL_PREFIX, Lease
from driver.setup import settings_file
from driver.setup.commands import outcome, run
from driver.setup.migration import flannel_rules
from driver.setup.migration.docker_files import DockerFiles, settings
from driver.setup.migration.found import Container, Device, Docker, Flanneld, Found

PROCESSES = Path("/proc")
NAME = "flanneld"
UNITS = ("flanneld.service", "flannel.service")
DOCKER_UNIT = "docker.service"
DAEMON_JSON = Path("/etc/docker/daemon.json")
PREFIX = "FLANNELD_"
KNOWN = {s.variable for s in SETTINGS} | {"FLANNELD_IP_MASQ", "FLANNELD_KUBE_SUBNET_MGR"}
VARIANTS = ("iptables-nft", "iptables-legacy")
NEEDS = ("Requires", "Requisite", "BindsTo", "PartOf")
ROUTES = ("ip", "-j", "-4", "route", "show", "proto")
PROTOCOL = 91  # of this plugin's routes
ALL = 100_000  # containers; Docker shows all of them


@dataclass(frozen=True, slots=True)
class Look:
    """How to look: Docker's socket, flanneld's file, and how to ask this plugin for its status."""

    docker: Path
    file: Path
    status: Callable[[], Mapping[str, Any]]

    def found(self) -> Found:
        """Return what there is. Errors: HostError if a tool of the host fails."""
        lease, why, ipv6 = _lease(self.file)
        status = None
        with suppress(FlannelError):
            status = self.status()
        peers = {IPv4Network(p["subnet"]): p["public_ip"] for p in (status or {}).get("peers", ())}
        device = _device()
        return Found(
            file=self.file,
            lease=lease,
            why=why,
            ipv6=ipv6,
            flanneld=_flanneld(),
            docker=_docker(self.docker),
            device=device,
            routes=tuple(_routes(device, peers)),
            rules=_rules(),
            tables=tuple(" ".join(t) for t in _tables()),
            status=status,
            settings=text_of(settings_file.OURS),
            set_here=settings_file.read(settings_file.OURS),
            reached=frozenset(row["dst"] for row in _json(*ROUTES, str(PROTOCOL))),
            used=tuple(IPv4Network(d) for d in _destinations()),
            names=engine.Engine(self.docker).names().networks,
        )


def _lease(file: Path) -> tuple[Lease | None, str, bool]:
    try:
        found = read_subnet_file(file)
        text = read_file(file).decode()
    except (FlannelError, OSError, ValueError) as error:
        return None, str(error), False
    if found.marked:
        return None, f"{file} was written by this plugin", False
    return found.lease, "", "FLANNEL_IPV6_SUBNET=" in text


# --- processes and units ---


def _processes(name: str) -> Iterator[int]:
    for folder in PROCESSES.iterdir():
        with suppress(OSError):
            if folder.name.isdigit() and (folder / "comm").read_text() == f"{name}\n":
                yield int(folder.name)


def _words(process: int, what: str) -> list[str]:
    """Return a process's command line or its environment."""
    try:
        text = (PROCESSES / str(process) / what).read_bytes().decode(errors="replace")
    except OSError:
        return []
    return [word for word in text.split("\0") if word]


def _unit(name: str, *properties: str) -> dict[str, str]:
    """Return properties of a unit, none without systemd; of one that is there twice both lines."""
    if not which("systemctl"):
        return {}
    code, out, _ = outcome("systemctl", "show", f"--property={','.join(properties)}", name)
    found: dict[str, str] = {}
    for line in out.splitlines() if not code else ():
        key, _, value = line.partition("=")
        found[key] = f"{found[key]}\n{value}" if key in found else value
    return found


def _files(properties: Mapping[str, str]) -> list[Path]:
    """Return the environment files of a unit, which systemd shows as `FILE (ignore_errors=yes)`."""
    lines = properties.get("EnvironmentFiles", "").splitlines()
    return [Path(line.partition(" (")[0]) for line in lines if line]


def _flanneld() -> Flanneld:
    process = next(_processes(NAME), 0)
    for name in UNITS:
        shown = _unit(name, "LoadState", "MainPID", "EnvironmentFiles")
        if shown.get("LoadState") == "loaded":
            break
    else:
        name, shown = "", {}
    if process and shown.get("MainPID") != str(process):
        name = ""  # somebody else started it
    found: dict[str, str] = {}
    for file in [settings_file.FLANNELD, *_files(shown)]:
        with suppress(FlannelError):
            found |= settings_file.read(file)
    found |= dict(word.split("=", 1) for word in _words(process, "environ") if "=" in word)
    found |= _options(_words(process, "cmdline"))
    enabled = bool(name) and outcome("systemctl", "is-enabled", "--quiet", name)[0] == 0
    return Flanneld(process, name, enabled, {k: v for k, v in found.items() if k in KNOWN and v})


def _options(words: list[str]) -> Iterator[tuple[str, str]]:
    """Yield flanneld's options as the variables of the same meaning: --etcd-prefix=/a, -iface b."""
    for word, after in zip_longest(words, words[1:], fillvalue=""):
        if word.startswith("-"):
            name, equals, value = word.lstrip("-").partition("=")
            following = "" if after.startswith("-") else after
            yield f"{PREFIX}{name.upper().replace('-', '_')}", value if equals else following


# --- Docker ---


def _docker(socket: Path) -> Docker | None:
    process = engine.dockerd()
    if not process:
        return None
    words = _words(process, "cmdline")
    shown = _unit(DOCKER_UNIT, "MainPID", "FragmentPath", "DropInPaths", "EnvironmentFiles", *NEEDS)
    daemon_json = Path(_option(words, "--config-file") or DAEMON_JSON)
    own = shown.get("FragmentPath", "")
    units = [Path(p) for p in (own, *shown.get("DropInPaths", "").split()) if p]
    files = DockerFiles(
        daemon_json,
        text_of(daemon_json),
        {path: text_of(path) for path in units},
        {path: text_of(path) for path in _files(shown)},
    )
    try:
        containers = tuple(_containers(socket))
        live = bool(_ask(socket, "/info")["LiveRestoreEnabled"])
    except (OSError, ValueError, KeyError, TypeError, HTTPException) as error:
        raise Unavailable(f"Docker cannot be asked on {socket}: {error}") from error
    return Docker(
        process=process,
        unit=shown.get("MainPID") == str(process),
        bip=_option(words, "--bip") or str(settings(files.daemon).get("bip", "")),
        bridge=tuple(_addresses(DOCKER0)),
        files=files,
        containers=containers,
        live_restore=live,
        needs=frozenset(unit for name in NEEDS for unit in shown.get(name, "").split()),
    )


def _option(words: list[str], name: str) -> str:
    for word, after in zip_longest(words, words[1:], fillvalue=""):
        if word == name:
            return after
        if word.startswith(f"{name}="):
            return word.partition("=")[2]
    return ""


def _ask(socket: Path, what: str) -> Any:
    status, found = request(socket, "GET", what)
    if status != HTTPStatus.OK:
        raise ValueError(f"it answers {status} to {what}")
    return found


def _containers(socket: Path) -> Iterator[Container]:
    for row in _ask(socket, f"/containers/json?all=1&limit={ALL}"):
        networks = row["NetworkSettings"]["Networks"] or {}
        text = networks.get("bridge", {}).get("IPAddress", "")
        made = _ask(socket, f"/containers/{row['Id']}/json")
        yield Container(
            made["Name"].removeprefix("/"),
            row["State"] == "running",
            "bridge" in networks,
            IPv4Interface(text).ip if text else None,
            bool(made["HostConfig"]["AutoRemove"]),
        )


# --- the kernel ---


def _json(*words: str) -> list[dict[str, Any]]:
    """Return what a tool prints as JSON; nothing where there is no such object."""
    code, out, _ = outcome(*words)
    found = json.loads(out or "[]") if not code else []
    return [row for row in found if row]


def _addresses(link: str) -> Iterator[IPv4Interface]:
    for row in _json("ip", "-j", "-4", "address", "show", "dev", link):
        for each in row.get("addr_info", ()):
            yield IPv4Interface((each["local"], each["prefixlen"]))


def _device() -> Device | None:
    for row in _json("ip", "-j", "-d", "link", "show", "type", "vxlan"):
        vni = row["linkinfo"]["info_data"].get("id")
        if row["ifname"] == f"{FLANNEL_PREFIX}{vni}":
            ours = str(row.get("ifalias", "")).startswith(ALIAS_PREFIX)
            return Device(row["ifname"], row["address"], ours)
    return None


def _routes(device: Device | None, peers: Mapping[IPv4Network, str]) -> Iterator[tuple[str, ...]]:
    """Yield flanneld's routes: by its device, or straight to the host that has the subnet."""
    for row in _json(*ROUTES, "boot"):
        if "gateway" not in row or row["dst"] == "default":
            continue
        overlay = device is not None and row["dev"] == device.name
        if overlay or peers.get(IPv4Network(row["dst"])) == row["gateway"]:
            yield (row["dst"], "via", row["gateway"], "dev", row["dev"], "proto", "boot")


def _destinations() -> list[str]:
    rows = _json("ip", "-j", "-4", "route", "show")
    return [row["dst"] for row in rows if row["dst"] != "default"]


def _rules() -> dict[str, tuple[tuple[str, ...], ...]]:
    found = {}
    for name in filter(which, VARIANTS):
        if name.endswith("legacy") and not text_of(Path("/proc/net/ip_tables_names")):
            continue  # to ask would make its tables
        if words := tuple(flannel_rules.removals(run(f"{name}-save"))):
            found[name] = words
    return found


def _tables() -> list[tuple[str, ...]]:
    if not which("nft"):
        return []
    try:
        return flannel_rules.tables(run("nft", "-j", "list", "tables"))
    except HostError:  # a kernel without nf_tables
        return []
