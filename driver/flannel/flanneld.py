"""Messages about a flanneld that has this host's flannel network. Pure.

`what` is the sign of it: a device or a process, as `facts.Flanneld.sign` names it.
"""

from __future__ import annotations


def has_it(what: str) -> str:
    """Return the message that a flanneld has the lease."""
    return f"a flanneld on this host has its flannel lease, as {what} shows"


def refusal(what: str) -> str:
    """Return why the plugin does nothing with the setting "etcd"."""
    return (
        f"{has_it(what)}: set DOCKER_FLANNEL_LEASE=subnet-file to use that lease, or stop flanneld "
        "and delete its device"
    )


def used(what: str, file: str) -> str:
    """Return why the lease comes from the file although etcd endpoints are set."""
    return f"{has_it(what)}: it is used from {file}, and nothing is written to etcd"


def beside(what: str) -> str:
    """Return the message that a flanneld was started beside this plugin."""
    return (
        f"a flanneld runs beside this plugin, as {what} shows: nothing is written to etcd any "
        "more; stop flanneld, or leave the lease to it with DOCKER_FLANNEL_LEASE=subnet-file"
    )
