"""Waits until the service holds a lease from etcd, and tells how it goes."""

from __future__ import annotations

from driver.errors import Conflict, Unavailable
from driver.setup.machine import Document, Machine

LIMIT_S = 60.0
EVERY_S = 0.2
STEADY_S = 5.0  # another host with our public IP takes the lease back within this time
HELD = ("held", "moved", "renewing")
HOPELESS = ("refused", "lost", "beside")
MIGRATE = "; `docker-flannel migrate` shows the steps from flanneld to this driver"


def holds(status: Document) -> bool:
    """Whether the service has a lease from etcd, and etcd has it."""
    lease = status["lease"]
    return bool(lease) and lease["source"] == "etcd" and status["phase"] in HELD


def until_held(machine: Machine, *, contested: bool = False) -> Document:
    """Wait for the lease; return the status then.

    `contested`: another host may claim the same public IP, so the lease has to stay for a while.
    Errors: Conflict if there will be none, Unavailable if there is none in time.
    """
    begun = since = machine.clock()
    told: set[str] = set()
    while True:
        now, held = machine.clock(), False
        try:
            status = machine.status()
        except Unavailable as error:
            text = str(error)
        else:
            text, held = _said(status), holds(status)
            if status["phase"] in HOPELESS:
                raise Conflict(text + MIGRATE * (status["phase"] == "beside"))
            if held and now - since >= STEADY_S * contested:
                return status
        since = since if held else now
        if now - begun >= LIMIT_S:
            raise Unavailable(
                f"this host has no lease after {LIMIT_S:.0f} s ({text}); the service goes on "
                "trying: run the same command again to wait, or `docker-flannel leave` to undo it"
            )
        if text not in told:
            machine.say(f"waiting for the lease: {text}")
            told.add(text)
        machine.sleep(EVERY_S)


def _said(status: Document) -> str:
    why = status["note"] or next(iter(status["problems"]), "")
    return ": ".join(filter(None, (status["phase"], why)))
