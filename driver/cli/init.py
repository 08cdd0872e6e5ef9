"""The first network config, for who has no flannel yet.

Imports `flannel`, `flannel_config`, `registry`, `model`, `errors`.
"""

from __future__ import annotations

import json
from ipaddress import IPv4Network

from driver.errors import Conflict
from driver.flannel.etcd.registry import Registry
from driver.flannel.network_config import read_config
from driver.flannel.records import config_key
from driver.model.records import Overlay


def init_config(
    registry: Registry,
    prefix: str,
    network: IPv4Network,
    subnet_len: int | None = None,
    backend: str = "vxlan",
    **options: int | bool,
) -> Overlay:
    """Write a network config where there is none; `options` are the backend's, as flannel's docs.

    Errors: BadRecord when it would not be a good one, Conflict when there is one already.
    """
    fields: dict[str, object] = {"Network": str(network)}
    if subnet_len is not None:
        fields["SubnetLen"] = subnet_len
    text = json.dumps({**fields, "Backend": {"Type": backend, **options}})
    overlay = read_config(text)
    key = config_key(prefix)
    if registry.put_if(key, text, 0) is None:
        raise Conflict(f"there is a network config in etcd at {key} already: it is left as it is")
    return overlay
