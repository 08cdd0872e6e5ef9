"""Who may import whom: the layers of the driver, read from its source."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

import driver

ROOT = Path(driver.__file__).parent
FOLDERS = ("driver", "tests", "benchmarks", "demo")  # all that is Python
PURE = {
    "bridge", "rules", "ipam", "ports", "edit", "desire", "wire", "network_options", "leases",
    "vxlan", "flanneld", "iptables_rules", "iptables_ports", "daemon_json", "docker_opts",
    "report", "ps",
}  # fmt: skip
PURE |= {"nft_listing", "fights", "iptables_changes", "peer_rules"}
PURE |= {"addresses", "strays", "exposure"}
ADAPTERS = {"kernel", "events", "news", "vtep", "underlay", "firewall", "iptables", "sockets"}
ADAPTERS |= {"encoding", "losses", "news_filter", "scratch", "sysctls"}
ADAPTERS |= {"sandbox", "store", "conntrack", "xtables", "generation", "listing"}
ADAPTERS |= {"surroundings", "servers"}
PURE |= {"strangers", "adoption", "iptables_reading"}
ADAPTERS |= {"residents"}
ADAPTERS |= {"iptables_backend", "legacy_tables", "legacy", "port_maps", "tunnels"}
ADAPTERS |= {"lookout"}
ADAPTERS |= {"announce"}
ADAPTERS |= {"loopback"}
NETLINK = {
    "kernel": {"encoding", "events", "listing", "news", "surroundings", "sysctls"},
    "surroundings": {"events", "listing", "tunnels"},
    "listing": {"events"},
    "news": {"events", "news_filter"},
    "news_filter": {"events"},
    "encoding": {"events"},
    "sysctls": set(),
    "loopback": {"events", "rules", "sysctls"},
    "tunnels": {"events"},
    "lookout": {"events"},
    "vtep": {"events", "news"},
    "underlay": {"events", "listing"},
    "sandbox": {"events", "losses"},
    "losses": {"events", "news_filter"},
    "announce": {"events"},
    "residents": {"events", "sandbox"},
    "conntrack": {"events"},
    "port_maps": {"events", "rules"},
}
FIREWALL = {
    "firewall": {"nft_listing", "scratch", "generation", "port_maps", "rules"},
    "legacy_tables": {"iptables_rules"},
    "xtables": {"generation", "iptables_rules", "iptables_changes", "legacy_tables"},
    "iptables": {"xtables", "iptables_rules"},
    "iptables_backend": {
        "xtables",
        "generation",
        "iptables_rules",
        "iptables_ports",
        "iptables_changes",
        "iptables_reading",
        "scratch",
    },
}
BELOW = NETLINK | FIREWALL
FLANNEL = {"flannel", "flannel_config", "peers", "registry", "lease_steps", "membership"}
FLANNEL |= {"init_config", "mirror", "lease_sight"}
ETCD = {"etcd", "etcd_faults", "etcd_files", "etcd_members", "etcd_settings"}
NOUNS = {"errors", "facts", "model", "things", "prefixes"}
COMPOSE = {"service", "plugin", "kept", "__main__"}
HANDLERS = {"handlers", "ipam_calls", "network_calls", "endpoint_calls", "status", "upkeep"}
HANDLERS |= {"port_list", "adopting"}

# What a module may import of ours; what is not named here may import nothing.
ALLOWED: dict[str, set[str]] = {
    "errors": set(),
    "facts": set(),
    "model": set(),
    "prefixes": set(),
    "config": {"errors", "prefixes", "etcd_settings"},
    "things": {"model"},
    "seams": {"facts", "model", "things"},
    "client": {"errors"},
    "files": set(),
    **{name: (NOUNS | PURE) - {name} for name in PURE},
    **{name: NOUNS | {"rules"} for name in ADAPTERS},
    **{name: NOUNS | below for name, below in BELOW.items()},
    **{name: NOUNS | FLANNEL - {name} for name in FLANNEL},
    **{name: {"errors", "files", "registry"} | ETCD - {name} for name in ETCD},
    "exposure": {"facts", "etcd_settings"},
    "servers": {"files"},
    "subnet_env": NOUNS | {"docker_opts", "files"},
    "leases": NOUNS | {"flanneld", "subnet_env"},
    "setup_daemon": {"errors", "daemon_json", "files"},
    "etcd_leases": NOUNS
    | {"flanneld", "leases", "vxlan", "strays", "membership", "peers", "subnet_env"},
    "conntrack": NOUNS | {"events", "flows"},
    "flows": NOUNS | {"rules", "seams"},
    "hosts": NOUNS | {"seams"},
    "takeover": NOUNS | PURE | {"seams"},
    "history": {"report"},
    "reconcile": NOUNS | PURE | {"history", "hosts", "seams", "takeover"},
    "loop": NOUNS | {"desire", "reconcile", "leases", "seams"},
    "unburied": {"desire", "errors", "reconcile"},
    **{name: NOUNS | PURE | {"reconcile", "unburied", "__init__"} for name in HANDLERS},
    "narrow": {"errors"},
    "rights": {"errors"},
    "bygone": NOUNS | {"reconcile", "upkeep"},
    "secrets_shown": {"files"},
    "server": set(),
    "standby": {"errors", "wire"},
    "kept": {"errors", "store"},
    "service": {
        "config",
        "errors",
        "handlers",
        "kept",
        "narrow",
        "plugin",
        "reconcile",
        "rights",
        "server",
        "standby",
        "store",
    },
    "plugin": NOUNS
    | PURE
    | ADAPTERS
    | ETCD
    | FLANNEL
    | {"config", "bygone", "client", "loop", "reconcile", "seams", "etcd_leases", "flows"}
    | {"secrets_shown"},
    "__init__": set(),
    "__main__": {
        "__init__",
        "client",
        "config",
        "errors",
        "port_list",
        "store",
        "service",
        "status",
        "ps",
        "etcd",
        "init_config",
        "setup_daemon",
        "docker_opts",
    },
}
ALLOWED["adopting"] |= {"network_calls"}
ALLOWED["handlers"] |= HANDLERS - {"handlers"} | {"standby"}

THIRD_PARTY = {
    "pyroute2": {"encoding"},
    "nftables": {"firewall"},
    "iptc": {"legacy_tables"},
    "subprocess": {"xtables", "setup_daemon"},
    "sqlite3": {"store"},
    "flask": {"handlers"},
    "werkzeug": {"handlers"},
    "gunicorn": {"server", "service"},
    "waitress": {"server"},
    "http": {"client"},
    "etcd3": {"etcd", "etcd_members"},
    "grpc": {"etcd", "etcd_members"},
}


@cache
def source(name: str) -> str:
    return (ROOT / f"{name}.py").read_text()


@cache
def imported(name: str) -> set[str]:
    """List what a module imports anywhere in it, in full: package.module or package.module.name."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source(name))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name} imports relatively"
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def own(name: str) -> set[str]:
    """List the modules of ours that a module imports."""
    parts = [full.split(".") for full in imported(name) if full.split(".")[0] == "driver"]
    return {p[1] if len(p) > 1 and p[1] in MODULES else "__init__" for p in parts}


MODULES = sorted(path.stem for path in ROOT.glob("*.py"))


def test_every_module_has_its_layer() -> None:
    assert set(MODULES) == set(ALLOWED)


@pytest.mark.parametrize("name", MODULES)
def test_a_module_imports_only_what_is_below_it(name: str) -> None:
    assert own(name) <= ALLOWED[name]


@pytest.mark.parametrize("name", sorted(ADAPTERS))
def test_no_adapter_imports_another(name: str) -> None:
    assert own(name) & ADAPTERS <= BELOW.get(name, set())


def test_only_service_and_main_put_parts_together() -> None:
    for name in set(MODULES) - COMPOSE:
        assert not own(name) & COMPOSE, name
        assert not (own(name) & ADAPTERS and name not in ADAPTERS), name


@pytest.mark.parametrize("name", sorted(PURE - {"leases"} | NOUNS))
def test_what_is_pure_touches_nothing_outside(name: str) -> None:
    roots = {full.split(".")[0] for full in imported(name)}
    assert roots <= {
        "__future__", "ast", "collections", "contextlib", "dataclasses", "driver", "functools",
        "hashlib", "ipaddress", "itertools", "json", "re", "struct", "typing",
    }  # fmt: skip
    names = {node.id for node in ast.walk(ast.parse(source(name))) if isinstance(node, ast.Name)}
    assert not names & {"open", "print", "input", "exec", "eval"}


@pytest.mark.parametrize("package", sorted(THIRD_PARTY))
def test_each_package_has_one_user(package: str) -> None:
    users = {n for n in MODULES if package in {full.split(".")[0] for full in imported(n)}}
    allowed = THIRD_PARTY[package]
    assert users <= allowed
    if package != "iptc" and len(allowed) == 1:
        assert users == allowed


def test_only_the_command_reads_the_environment() -> None:
    """But for iptables' lock file, which its programs name by a variable, and protobuf's switch."""
    users = {name: len(re.findall(r"os\.environ|getenv", source(name))) for name in MODULES}
    assert {name: n for name, n in users.items() if n} == {
        "__main__": 1,
        "legacy_tables": 1,
        "etcd_members": 1,
    }


def test_no_module_is_long() -> None:
    top = ROOT.parent
    found = {name: list((top / name).rglob("*.py")) for name in FOLDERS}
    assert all(found.values())
    lengths = {f.relative_to(top): f.read_text().count("\n") for fs in found.values() for f in fs}
    assert {str(name): n for name, n in lengths.items() if n > 300} == {}


def test_there_is_no_cycle() -> None:
    left = {name: own(name) - {name} for name in MODULES}
    while left:
        leaves = {name for name, needs in left.items() if not needs & left.keys()}
        assert leaves, f"these import one another: {sorted(left)}"
        left = {name: needs for name, needs in left.items() if name not in leaves}
