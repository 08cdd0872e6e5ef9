"""Takes this host out of its flannel network, and puts back what `init` or `join` changed."""

from __future__ import annotations

import shutil
from ipaddress import IPv4Address

from driver.errors import Conflict, FlannelError, HostError
from driver.flannel.etcd.settings import EtcdSettings
from driver.flannel.mirror import Mirror
from driver.flannel.records import LeaseRecord
from driver.setup import settings_file
from driver.setup.joined import Joined
from driver.setup.machine import UNIT, Document, Machine

ENDPOINTS = "FLANNELD_ETCD_ENDPOINTS"
SHOWN = 5


def leave(machine: Machine, *, with_etcd: bool = False) -> bool:
    """Give up the lease and put the host back; return whether it was in a network.

    `with_etcd`: even if this host has the etcd that others use. A second run completes a first.
    Errors: FlannelError.
    """
    record, now = Joined.read(machine.folder), machine.in_force()
    written = record.written if record else {}
    if ENDPOINTS in now and now[ENDPOINTS] != written.get(ENDPOINTS):
        raise Conflict(
            f"{ENDPOINTS} is {now[ENDPOINTS]}, which neither `init` nor `join` wrote: remove it "
            f"from {' or '.join(map(str, machine.settings_files))} yourself, and restart "
            "docker-flannel"
        )
    if record is None:
        return False
    machine.check_service()
    if record.leaving is None:
        status = machine.running()
        machine.check_networks(status, "goes with the flannel network")
        lease = _lease(status)
        known = {**written, **now}  # without endpoints, `init` has not come to its token
        if record.etcd is not None and not with_etcd and ENDPOINTS in known:
            _check_others(machine, known, lease)
        record.leaving, record.applied = lease, False
        record.save()
    machine.say(f"stopping {UNIT}")
    machine.services.stop(UNIT)
    if ENDPOINTS in now:
        _release(machine, now, record.leaving)
    put_back(machine, record)
    machine.say(f"starting {UNIT} without the network")
    machine.services.restart(UNIT)
    record.remove()
    return True


def _lease(status: Document) -> dict[str, str]:
    """Return what tells this host's lease in etcd; nothing if it has none of its own."""
    overlay = status["overlay"]
    return {"public_ip": overlay["public_ip"], "mac": overlay["mac"]} if overlay else {}


def _leases(machine: Machine, now: dict[str, str]) -> list[LeaseRecord]:
    etcd = etcd_in_force(now)
    mirror = Mirror(machine.registry(etcd), etcd.prefix)
    mirror.sync()
    return mirror.view().leases[0]


def etcd_in_force(now: dict[str, str]) -> EtcdSettings:
    """Return the settings for etcd among those in force. Errors: BadRequest."""
    names = ("cafile", "certfile", "keyfile", "username", "password")
    rest = {name: now.get(f"FLANNELD_ETCD_{name.upper()}", "") for name in names}
    return EtcdSettings.read(now[ENDPOINTS], now.get("FLANNELD_ETCD_PREFIX", ""), **rest)


def _mine(record: LeaseRecord, lease: dict[str, str]) -> bool:
    """Whether a lease in etcd is the one that is given up; with host-gw it has no MAC."""
    return bool(lease) and (
        record.public_ip == IPv4Address(lease["public_ip"]) and record.mac in (None, lease["mac"])
    )


def _check_others(machine: Machine, now: dict[str, str], lease: dict[str, str]) -> None:
    """Check that no other host has a lease in the etcd of this host. Errors: Conflict."""
    what = (
        "hosts that use it keep their networks as they are, but see no new hosts, and new leases "
        "cannot be had; `docker-flannel leave --with-etcd` does it"
    )
    try:
        others = [r for r in _leases(machine, now) if not _mine(r, lease)]
    except FlannelError as error:
        raise Conflict(
            f"this host has the network's etcd, which goes with it, and {error}: {what}"
        ) from None
    if others:
        shown = ", ".join(str(r.public_ip) for r in others[:SHOWN])
        more = f" and {len(others) - SHOWN} more" * (len(others) > SHOWN)
        raise Conflict(
            f"this host has the etcd that {shown}{more} use: let them leave first; without etcd, "
            f"{what}"
        )


def _release(machine: Machine, now: dict[str, str], lease: dict[str, str]) -> None:
    """Delete this host's lease from etcd; if that cannot be, it runs out by itself."""
    try:
        etcd = etcd_in_force(now)
        registry = machine.registry(etcd)
        for found in filter(lambda r: _mine(r, lease), _leases(machine, now)):
            if registry.delete_if(found.key, found.revision):
                machine.say(f"gave up the lease of {found.subnet}")
    except FlannelError as error:
        machine.say(f"the lease stays in etcd until it runs out, in at most a day: {error}")


def put_back(machine: Machine, record: Joined) -> bool:
    """Undo what the record says; return whether settings were changed.

    Errors: FlannelError; a second run completes a first.
    """
    now = settings_file.read(machine.settings)
    changed = settings_file.edit(machine.settings, record.old(now))
    if changed:
        machine.say(f"removed the settings from {machine.settings}")
    if record.etcd is not None:
        machine.say("removing the etcd that init set up")
        machine.etcd.remove(record.etcd)
    try:
        for name in record.files:
            (machine.folder / name).unlink(missing_ok=True)
    except OSError as error:
        raise HostError(f"{machine.folder} cannot be emptied: {error.strerror}") from error
    for left in ("joining", "making"):  # of runs that were killed
        shutil.rmtree(machine.folder / left, ignore_errors=True)
    return changed
