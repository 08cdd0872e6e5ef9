"""dockerd's options for a host whose containers are all on docker0. Pure."""

from __future__ import annotations

from ipaddress import IPv4Network


def options(subnet: IPv4Network, mtu: int, *, ipmasq: bool | None) -> dict[str, str]:
    """Return dockerd's options by the names that mk-docker-opts gives them; `mtu` in bytes.

    `ipmasq`: whether flannel masquerades, since then Docker must not; None when unknown.
    Source: flannel, dist/mk-docker-opts.sh.
    """
    given = {"BIP": f"--bip={subnet[1]}/{subnet.prefixlen}"}
    if ipmasq is not None:
        given["IPMASQ"] = f"--ip-masq={'false' if ipmasq else 'true'}"
    return {**given, "MTU": f"--mtu={mtu}"}
