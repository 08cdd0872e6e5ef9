"""Whether a flanneld of this host has its flannel network, and what is said of that. Pure.

Two programs with one lease each write their own MAC into etcd and into the device, and the host's
overlay is dead: where a flanneld is, the plugin leaves etcd, the device and the lease file to it.

The MAC in etcd is no sign: after a reinstallation it is one that nobody knows any more. A flanneld
makes its device before it writes its lease, and while it waits for etcd its process is seen.
Imports nouns and `vxlan`.
"""

from __future__ import annotations

from driver.facts import Facts, Flanneld
from driver.model import Lease, Overlay
from driver.things import Address, Fdb, Neighbour, PeerRoute, Sysctl, Thing, Vxlan
from driver.vxlan import PREFIX, device_name


def sign(seen: Flanneld, overlay: Overlay | None) -> str:
    """Name what shows that a flanneld has this host's flannel network; "" if nothing does.

    As long as no config is known, every device that flanneld would call so counts. A process that
    belongs to the device of another flannel network does not.
    """
    if device := _device(seen, overlay):
        return f"the device {device}"
    if seen.process and not any(name.startswith(PREFIX) for name, _, _ in seen.devices):
        return f"the process {seen.process}"
    return ""


def joined(seen: Flanneld, overlay: Overlay) -> bool:
    """Whether a flanneld came when the plugin had the network already.

    It then uses the plugin's device, MAC and lease as they are. host-gw has no device.
    """
    mine = overlay.backend == "host-gw" or device_name(overlay) in seen.own
    return mine and not _device(seen, overlay)


def has(seen: Flanneld, overlay: Overlay) -> bool:
    """Whether a flanneld has the network, so that none of it is the plugin's to make."""
    return bool(sign(seen, overlay)) and not joined(seen, overlay)


def left_alone(things: frozenset[Thing], lease: Lease | None, facts: Facts) -> frozenset[Thing]:
    """Leave out the overlay's things where they are a flanneld's, whoever made them.

    A flanneld that finds the plugin's device and routes uses them as they are: what bears the
    plugin's mark may be in use although the lease is not the plugin's any more.
    """
    if lease.source != "subnet-file" if lease else not facts.flanneld.process:
        return things
    return frozenset(thing for thing in things if not _of_overlay(thing))


def _of_overlay(thing: Thing) -> bool:
    if isinstance(thing, Address | Sysctl):
        return thing.link.startswith(PREFIX)
    return isinstance(thing, Vxlan | Neighbour | Fdb | PeerRoute)


def _device(seen: Flanneld, overlay: Overlay | None) -> str:
    for name, vni, port in sorted(seen.devices):
        if overlay is None:
            if name == f"{PREFIX}{vni}":
                return name
        elif name == device_name(overlay):
            return name
        elif overlay.backend == "vxlan" and (vni, port) == (overlay.vni, overlay.port):
            return f"{name} of VNI {vni}"
    return ""


def has_it(what: str) -> str:
    """Say that a flanneld has the network, and what shows it."""
    return f"a flanneld on this host has its flannel lease, as {what} shows"


def refusal(what: str) -> str:
    """Say why nothing is done while etcd is what was asked for."""
    return (
        f"{has_it(what)}: set DOCKER_FLANNEL_LEASE=subnet-file to use that lease, or stop flanneld "
        "and delete its device"
    )


def used(what: str, file: str) -> str:
    """Say why the lease comes from the file although etcd has endpoints."""
    return f"{has_it(what)}: it is used from {file}, and nothing is written to etcd"


def beside(what: str) -> str:
    """Say that a flanneld was started beside this plugin."""
    return (
        f"a flanneld runs beside this plugin, as {what} shows: nothing is written to etcd any "
        "more; stop flanneld, or leave the lease to it with DOCKER_FLANNEL_LEASE=subnet-file"
    )
