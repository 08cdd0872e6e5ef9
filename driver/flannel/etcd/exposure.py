"""Whether containers of this host could change all hosts' leases in etcd. Pure."""

from __future__ import annotations

from driver.flannel.etcd.settings import EtcdSettings
from driver.model.facts import Facts

SHOWN = 3  # bridges named in a warning


def warnings(etcd: EtcdSettings | None, facts: Facts, *, ours: bool) -> list[str]:
    """Return a warning if containers can reach endpoints without login or client certificates.

    `ours`: a setting lets containers on this plugin's networks reach etcd.
    """
    bridges = ["this plugin's networks"] * ours + sorted(facts.foreign)
    if etcd is None or not etcd.unguarded or not bridges:
        return []
    more = " and others" * (len(bridges) > SHOWN)
    return [
        f"etcd at {', '.join(map(str, etcd.unguarded))} asks for no client certificate and no "
        f"login, and containers on {', '.join(bridges[:SHOWN])}{more} may reach it: whoever writes "
        "there steers the packets of all hosts; give it TLS with client certificates, as "
        "packaging/examples/etcd.md shows"
    ]
