"""Choose an endpoint's host ports. Pure: the caller picks among the free ones."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

from driver.errors import Conflict, Exhausted, Place
from driver.model.records import ANY, PortMapping, Proto, State, short

Pick = Callable[[Sequence[int]], int]
LISTENING: dict[Proto, str] = {"tcp": "t", "udp": "u", "sctp": "S"}  # ss' options


@dataclass(frozen=True, slots=True)
class Binding:
    """A request for one host port of `first`..`last`, as `-p` makes it."""

    proto: Proto
    host_ip: IPv4Address
    first: int
    last: int
    port: int

    @property
    def fixed(self) -> bool:
        """Whether there is no choice."""
        return self.first == self.last

    def allows(self, port: PortMapping) -> bool:
        """Whether a mapping is what it asks for."""
        same = (self.proto, self.host_ip, self.port) == (port.proto, port.host_ip, port.port)
        return same and self.first <= port.host_port <= self.last


def choose_ports(
    state: State, endpoint: str, wanted: Iterable[Binding], pick: Pick, tried: Iterable[Place] = ()
) -> tuple[PortMapping, ...]:
    """Choose a free host port for each binding, first for those without choice.

    A port that the endpoint has already is kept, since Docker may repeat the call. `pick` chooses
    among free ports; `tried` were found taken by other programs.
    Errors: Conflict in Docker's words, Exhausted for a range.
    """
    own = state.endpoints[endpoint].ports if endpoint in state.endpoints else ()
    wanted = sorted(wanted, key=lambda b: b.last - b.first)
    users: dict[tuple[str, int], list[tuple[IPv4Address, str]]] = defaultdict(list)
    for port, owner in _in_the_way(state, endpoint, wanted):
        users[port.proto, port.host_port].append((port.host_ip, owner))
    for proto, ip, number in tried:
        users[proto, number].append((ip, ""))
    chosen = []
    for binding in wanted:
        taken = {
            number: owner
            for proto, number in ([(binding.proto, binding.first)] if binding.fixed else users)
            if proto == binding.proto
            for ip, owner in users.get((proto, number), ())
            if _overlap(ip, binding.host_ip)
        }
        free = [n for n in range(binding.first, binding.last + 1) if n not in taken]
        if not free:
            raise _none_free(binding, taken.get(binding.first, ""))
        had = (p.host_port for p in own if binding.allows(p) and p.host_port not in taken)
        number = free[0] if binding.fixed else next(had, 0) or pick(free)
        users[binding.proto, number].append((binding.host_ip, endpoint))
        chosen.append(PortMapping(binding.proto, binding.host_ip, number, binding.port))
    return tuple(chosen)


def _in_the_way(
    state: State, endpoint: str, wanted: Sequence[Binding]
) -> Iterator[tuple[PortMapping, str]]:
    """Yield other endpoints' ports within the wanted range, with the endpoints: mostly none."""
    lowest = min((b.first for b in wanted), default=0)
    highest = max((b.last for b in wanted), default=0)
    for other in state.endpoints.values():
        ports = other.ports if other.id != endpoint else ()
        if ports and ports[0].host_port <= highest and lowest <= ports[-1].host_port:
            for port in ports:
                if lowest <= port.host_port <= highest:
                    yield port, other.id


def _overlap(one: IPv4Address, other: IPv4Address) -> bool:
    return one == other or ANY in (one, other)


def _none_free(binding: Binding, owner: str) -> Conflict | Exhausted:
    if binding.fixed:
        words = f"Bind for {binding.host_ip}:{binding.first} failed: port is already allocated, "
        if owner:
            return Conflict(f"{words}for {binding.proto} by endpoint {short(owner)}")
        return Conflict(
            f"{words}for {binding.proto} by another program; "
            f"`ss -ln{LISTENING[binding.proto]}p sport = :{binding.first}` shows which, and "
            f"`docker ps -f publish={binding.first}` if it is a container on another network"
        )
    return Exhausted(
        f"no free host port for container port {binding.port}/{binding.proto}: all of "
        f"{binding.first}-{binding.last} are taken; `docker flannel ports` and "
        f"`ss -ln{LISTENING[binding.proto]}p` show by whom"
    )
