"""Networks that a changed lease does not fit."""

from __future__ import annotations

from collections.abc import Iterator

from driver.model.records import Network, State, short


def outside(state: State) -> Iterator[str]:
    """Name the networks whose blocks are not in the lease, a sentence each."""
    for network in state.networks.values():
        block = network.gateway.network
        if state.lease is not None and not block.subnet_of(state.lease.subnet):
            yield (
                f"network {short(network.id)} has {block}, outside the lease {state.lease.subnet}: "
                f"{_cure(network)}"
            )


def too_large(state: State) -> Iterator[str]:
    """Name the networks whose MTU is larger than the lease's, a sentence each."""
    for network in state.networks.values():
        if state.lease is not None and network.mtu > state.lease.mtu:
            yield (
                f"network {short(network.id)} has the MTU {network.mtu}, the way to other hosts "
                f"only {state.lease.mtu}: larger packets may be lost; {_cure(network)}"
            )


def _cure(network: Network) -> str:
    return f"remove it (`docker network rm {short(network.id)}`) and make it anew"
