"""The checks of a host, before and after the plugin is installed there: a table of functions.

Each looks at what was found and returns findings; none of them touches the host.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import NamedTuple

from driver.config import Config
from driver.model.preflight import (
    BRIDGE,
    GUARDS,
    LIBNFTABLES,
    NF_TABLES,
    VETH,
    VXLAN,
    VXLAN_PORT,
    Preflight,
)
from driver.model.records import Overlay
from driver.setup import settings_file
from driver.setup.etcd_look import MemberLook

OK, NOTE, FAILED = "ok", "note", "failed"
CLOCK_S = 5.0  # of difference that is no note yet
OLDEST, ADDRESS_BY_DRIVER = (20, 10), 28
CRASHING = ((29, 0, 0), (29, 0, 2))  # from, to


TOOLS = {  # programs that are run, and what is missing without them
    "iptables": "dockerd and the firewall's fallback cannot work: `apt install iptables`",
    "modprobe": "modules are not loaded at the start of the service: `apt install kmod`",
}


class Finding(NamedTuple):
    """What a check found: `FAILED` keeps the plugin from working, `NOTE` may matter."""

    result: str
    text: str


@dataclass(frozen=True, slots=True)
class Look:
    """All that was found. `docker`: its version, "" with the reason in `docker_fault`.

    `subnets`: those of Docker's other networks, with the network's name; `missing`: programs that
    are not there; `root`: where the files of other programs' settings are.
    """

    config: Config
    host: Preflight
    members: tuple[MemberLook, ...] = ()
    docker: str = ""
    docker_fault: str = ""
    subnets: Sequence[tuple[str, IPv4Network]] = ()
    missing: tuple[str, ...] = ()
    root: Path = Path("/")

    @property
    def overlay(self) -> Overlay | None:
        """The network config in etcd."""
        return next((m.overlay for m in self.members if m.overlay), None)

    @property
    def network(self) -> IPv4Network:
        """The flannel network, as far as it is known."""
        return self.overlay.network if self.overlay else self.config.network

    @property
    def port(self) -> int:
        """The UDP port of the overlay, as far as it is known."""
        return self.overlay.port if self.overlay else VXLAN_PORT


def findings(look: Look) -> Iterator[tuple[str, Finding]]:
    """Return what each check finds, with the check's name; one that finds nothing is ok."""
    for name, check in CHECKS.items():
        found = list(check(look)) or [Finding(OK, "")]
        yield from ((name, finding) for finding in found)


def _kernel(look: Look) -> Iterator[Finding]:
    lacking = look.host.lacking
    for what in (BRIDGE, VETH):
        if what in lacking:
            yield Finding(FAILED, f"the kernel has no {what}: load the module, `modprobe {what}`")
    if VXLAN in lacking:
        level = FAILED if look.config.follows_etcd else NOTE
        yield Finding(level, "the kernel has no vxlan: `modprobe vxlan`, or use host-gw")
    if GUARDS in lacking:
        yield Finding(
            NOTE, "no port can be published on 127.0.0.1: `modprobe -a sch_ingress cls_bpf`"
        )


def _firewall(look: Look) -> Iterator[Finding]:
    lacking, wanted = look.host.lacking, look.config.firewall
    if wanted == "iptables" or (wanted == "auto" and NF_TABLES in lacking):
        if "iptables" in look.missing:
            yield Finding(FAILED, "iptables is to be used and is not there: `apt install iptables`")
        elif wanted == "auto":
            yield Finding(NOTE, "the kernel has no nf_tables: iptables is used, which is slower")
    elif NF_TABLES in lacking:
        yield Finding(FAILED, "the kernel has no nf_tables: set DOCKER_FLANNEL_FIREWALL=iptables")
    elif LIBNFTABLES in lacking:
        yield Finding(FAILED, "libnftables is missing: `apt install libnftables1`")


def _tools(look: Look) -> Iterator[Finding]:
    for program in look.missing:
        yield Finding(NOTE, f"{program} is not there, so {TOOLS[program]}")


def _docker(look: Look) -> Iterator[Finding]:
    if look.docker_fault:
        yield Finding(NOTE, f"{look.docker_fault}; start Docker, and run this check again")
        return
    version = tuple(map(int, re.findall(r"\d+", look.docker)[:3]))
    if not version:
        yield Finding(NOTE, f"Docker's version {look.docker!r} is none that this check knows")
    elif CRASHING[0] <= version <= CRASHING[1]:
        yield Finding(
            FAILED, f"Docker {look.docker} crashes when a container stops: update it to 29.0.3"
        )
    elif version < OLDEST:
        yield Finding(FAILED, f"Docker {look.docker} is too old: 20.10 is the oldest that works")
    else:
        more = ": see `docker flannel setup-daemon`" if version[0] >= ADDRESS_BY_DRIVER else ""
        yield Finding(OK, f"Docker {look.docker}{more}")


def _subnets(look: Look) -> Iterator[Finding]:
    net, facts = look.network, look.host.facts
    for name, subnet in look.subnets:
        if subnet.overlaps(net):
            cure = "--bip" if name == "bridge" else "default-address-pools"
            yield Finding(
                NOTE,
                f"Docker's network {name} has {subnet}, inside {net}: those addresses are left "
                f"out; set another {cure} in /etc/docker/daemon.json",
            )
    known = {subnet for _, subnet in look.subnets}
    for other in sorted({*facts.onlink, *facts.routed} - known):
        if not other.overlaps(net):
            continue
        if other in facts.lans and net.subnet_of(other):
            continue  # a network chosen inside a LAN, on purpose
        if other.prefixlen == other.max_prefixlen and facts.flanneld.devices:
            continue  # the address of a flanneld's device
        # a lease of this host's own leaves it out, but other hosts' leases may be there
        level = FAILED if other in facts.lans and look.config.follows_etcd else NOTE
        cure = "choose another network (DOCKER_FLANNEL_NETWORK, or in etcd), or remove that route"
        yield Finding(level, f"this host reaches {other}, which overlaps {net}: {cure}")


def _underlay(look: Look) -> Iterator[Finding]:
    if not look.config.follows_etcd:
        return
    found = look.host.external
    if found is None:
        yield Finding(FAILED, look.host.no_external)
    else:
        yield Finding(
            OK, f"other hosts reach this one by {found.name}, {found.ip}, MTU {found.mtu}"
        )


def _port(look: Look) -> Iterator[Finding]:
    port, vni = look.port, look.overlay.vni if look.overlay else 1
    for name, other_vni, other_port in sorted(look.host.facts.flanneld.devices):
        if other_port == port and other_vni == vni:
            yield Finding(
                NOTE if look.host.facts.flanneld.process else FAILED,
                f"the vxlan device {name} has VNI {vni} on UDP port {port}: that is a flanneld's, "
                f"or `ip link delete {name}`",
            )
    if look.host.port_taken:
        yield Finding(
            FAILED, f"a program has UDP port {port}: `ss -ulpn sport = :{port}` names it; stop it"
        )


def _etcd(look: Look) -> Iterator[Finding]:
    for member in look.members:
        if member.fault:
            yield Finding(FAILED, member.fault)
        elif member.overlay is None:
            yield Finding(NOTE, f"{member.endpoint} has no network config: `docker-flannel init`")
        else:
            yield Finding(OK, f"{member.endpoint} answers")


def _clock(look: Look) -> Iterator[Finding]:
    for member in look.members:
        if member.ahead_s is not None and abs(member.ahead_s) > CLOCK_S:
            far = f"{abs(member.ahead_s):.0f} s {'ahead of' if member.ahead_s > 0 else 'behind'}"
            yield Finding(
                NOTE, f"the clock of {member.endpoint} is {far} this host's: `timedatectl` says why"
            )


def _forwarding(look: Look) -> Iterator[Finding]:
    setting = look.root / "proc/sys/net/ipv4/ip_forward"
    if not look.config.ip_forward and setting.read_text().strip() == "0":
        yield Finding(
            FAILED, "net.ipv4.ip_forward is 0 and DOCKER_FLANNEL_IP_FORWARD=0 leaves it so: set it"
        )


def _managers(look: Look) -> Iterator[Finding]:
    places = {
        "systemd-networkd": (
            "run/systemd/netif/state",
            ("etc/systemd/network", "usr/lib/systemd/network"),
        ),
        "NetworkManager": (
            "run/NetworkManager",
            ("etc/NetworkManager/conf.d", "usr/lib/NetworkManager/conf.d"),
        ),
    }
    for name, (sign, folders) in places.items():
        files = [f for folder in folders for f in (look.root / folder).glob("*") if f.is_file()]
        if (look.root / sign).exists() and not any(b"fl-" in f.read_bytes() for f in files):
            yield Finding(
                NOTE,
                f"{name} may take the interfaces fl-* and flannel.*: exclude them in "
                f"/{folders[0]} (packaging/examples)",
            )


def _firewalls(look: Look) -> Iterator[Finding]:
    ufw = settings_file.read(look.root / "etc/ufw/ufw.conf")
    if ufw.get("ENABLED", "").lower() == "yes":
        yield Finding(NOTE, f"ufw is on: `ufw allow {look.port}/udp` lets other hosts in")
    if (look.root / "run/firewalld").exists():
        yield Finding(
            NOTE,
            "firewalld is on: `firewall-cmd --permanent --zone=trusted --add-interface=fl-+ "
            f"--add-interface=flannel.+` and `--add-port={look.port}/udp`, then `--reload`",
        )


CHECKS: dict[str, Callable[[Look], Iterator[Finding]]] = {
    "kernel": _kernel,
    "firewall": _firewall,
    "tools": _tools,
    "Docker": _docker,
    "subnets": _subnets,
    "interface": _underlay,
    "UDP port": _port,
    "etcd": _etcd,
    "clock": _clock,
    "forwarding": _forwarding,
    "network managers": _managers,
    "host's firewall": _firewalls,
}
