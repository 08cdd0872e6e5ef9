"""Whether containers of this host could rewrite what etcd says of all hosts. Pure.

Imports `facts` and `etcd_settings`.
"""

from __future__ import annotations

from driver.flannel.etcd.settings import EtcdSettings
from driver.model.facts import Facts

SHOWN = 3  # bridges that are named


def warnings(etcd: EtcdSettings | None, facts: Facts, *, ours: bool) -> list[str]:
    """Warn of endpoints without login and client certificates that containers can reach.

    `ours`: those on this plugin's networks, too, since a setting allows it.
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
