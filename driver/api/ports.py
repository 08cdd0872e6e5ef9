"""What this host really has of its published ports, as a JSON document."""

from __future__ import annotations

from driver.api.body import Reply
from driver.core.firewall import plan_ports
from driver.core.reconciler import Reconciler
from driver.model.firewall import FirewallEntry, PortMap
from driver.model.objects import HostObject, PortSocket
from driver.model.records import Endpoint, PortMapping, replace


def document(core: Reconciler) -> Reply:
    """Return every port that should be published, and whether the host has it.

    Shape: {ports: [{proto, host_ip, host_port, container_ip, container_port, endpoint, network,
    sandbox, published, held}]}; `published`: the firewall leads it to the container; `held`: a
    socket of ours keeps the host port from other programs.
    Errors: HostError.
    """
    have = core.dataplane.observe((FirewallEntry, PortSocket))
    core.wake()  # after this look, passes no longer notice that the firewall was disturbed
    return {
        "ports": [
            _port(endpoint, mapping, have)
            for endpoint in core.state.endpoints.values()
            for mapping in endpoint.ports
        ]
    }


def _port(endpoint: Endpoint, mapping: PortMapping, have: frozenset[HostObject]) -> Reply:
    objects = list(plan_ports(replace(endpoint, ports=(mapping,))))
    return {
        "proto": mapping.proto,
        "host_ip": str(mapping.host_ip),
        "host_port": mapping.host_port,
        "container_ip": str(endpoint.shown_ip.ip),
        "container_port": mapping.port,
        "endpoint": endpoint.id,
        "network": endpoint.network,
        "sandbox": endpoint.sandbox,
        "published": any(t in have for t in objects if isinstance(t, PortMap)),
        "held": any(t in have for t in objects if isinstance(t, PortSocket)),
    }
