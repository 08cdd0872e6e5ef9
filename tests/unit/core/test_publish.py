"""Which host ports an endpoint gets."""

from __future__ import annotations

from collections.abc import Sequence
from ipaddress import IPv4Address
from typing import Any

import pytest

from driver.core.publish import Binding, choose_ports
from driver.errors import Conflict, Exhausted
from driver.model.records import PortMapping, Proto, State
from tests.unit.fakes import seeded
from tests.unit.sample import END, END2, endpoint, state_of


def wish(first: int, last: int = 0, host: str = "0.0.0.0", **changes: Any) -> Binding:
    proto, port = changes.get("proto", "tcp"), changes.get("port", 80)
    return Binding(proto, IPv4Address(host), first, last or first, port)


def mapped(number: int, host: str = "0.0.0.0", proto: Any = "tcp", port: int = 80) -> PortMapping:
    return PortMapping(proto, IPv4Address(host), number, port)


def held(*ports: PortMapping, by: str = END2) -> State:
    return state_of(endpoint(by, ports=ports))


def lowest(numbers: Sequence[int]) -> int:
    return min(numbers)


def choose(state: State, *wanted: Binding, tried: Any = ()) -> list[PortMapping]:
    return list(choose_ports(state, END, wanted, lowest, tried))


def test_nothing_is_wanted() -> None:
    assert choose(held(mapped(80))) == []


def test_a_fixed_port_is_given_as_it_is() -> None:
    got = choose(State(), wish(8080, host="127.0.0.1", proto="udp", port=53))
    assert got == [mapped(8080, "127.0.0.1", "udp", 53)]


@pytest.mark.parametrize(
    ("mine", "theirs", "clash"),
    [
        (wish(8080), mapped(8080), True),
        (wish(8080), mapped(8080, "192.168.1.5"), True),
        (wish(8080, host="192.168.1.5"), mapped(8080), True),
        (wish(8080, host="192.168.1.5"), mapped(8080, "192.168.1.5"), True),
        (wish(8080, host="192.168.1.5"), mapped(8080, "192.168.1.6"), False),
        (wish(8080), mapped(8081), False),
        (wish(8080), mapped(8080, proto="udp"), False),
        (wish(8080, proto="sctp"), mapped(8080, proto="sctp"), True),
    ],
)
def test_a_port_of_another_endpoint(mine: Binding, theirs: PortMapping, *, clash: bool) -> None:
    if not clash:
        assert len(choose(held(theirs), mine)) == 1
        return
    with pytest.raises(Conflict) as caught:
        choose(held(theirs), mine)
    assert str(caught.value) == (
        f"Bind for {mine.host_ip}:8080 failed: port is already allocated, "
        f"for {mine.proto} by endpoint dddddddddddd"
    )


def test_own_ports_are_replaced_and_so_are_free() -> None:
    assert choose(held(mapped(8080), by=END), wish(8080, port=81)) == [mapped(8080, port=81)]


def test_one_endpoint_cannot_have_one_port_twice() -> None:
    with pytest.raises(Conflict, match=r"Bind for 0.0.0.0:8080 failed: .* endpoint cccccccccccc"):
        choose(State(), wish(8080, port=80), wish(8080, port=81))


def test_a_range_gives_what_is_free_of_it() -> None:
    assert choose(held(mapped(8000), mapped(8001, "10.0.0.1")), wish(8000, 8002)) == [mapped(8002)]
    with pytest.raises(Exhausted) as caught:
        choose(held(mapped(8000), mapped(8001)), wish(8000, 8001, port=443))
    assert str(caught.value) == (
        "no free host port for container port 443/tcp: all of 8000-8001 are taken; "
        "`docker flannel ports` and `ss -lntp` show by whom"
    )


def test_those_without_a_choice_come_first() -> None:
    got = choose(State(), wish(8000, 8002, port=1), wish(8000, 8001, port=2), wish(8000, port=3))
    assert {p.port: p.host_port for p in got} == {3: 8000, 2: 8001, 1: 8002}


def test_ports_that_were_tried_are_passed_over() -> None:
    tried = {("tcp", IPv4Address(0), 8000), ("tcp", IPv4Address("10.0.0.1"), 8001)}
    assert choose(State(), wish(8000, 8002), tried=tried) == [mapped(8002)]
    on_two = [wish(8000, 8001, f"10.0.0.{i}") for i in (1, 2)]
    with pytest.raises(Exhausted):
        choose(State(), on_two[0], tried=tried)
    assert choose(State(), on_two[1], tried=tried) == [mapped(8001, "10.0.0.2")]
    assert choose(State(), wish(8000, proto="udp"), tried=tried) == [mapped(8000, proto="udp")]


@pytest.mark.parametrize(("proto", "letter"), [("tcp", "t"), ("udp", "u"), ("sctp", "S")])
def test_another_programs_port_is_refused_with_how_to_find_it(proto: Proto, letter: str) -> None:
    with pytest.raises(Conflict) as caught:
        choose(State(), wish(8000, proto=proto), tried={(proto, IPv4Address(0), 8000)})
    assert str(caught.value) == (
        f"Bind for 0.0.0.0:8000 failed: port is already allocated, for {proto} by another program; "
        f"`ss -ln{letter}p sport = :8000` shows which, and `docker ps -f publish=8000` if it is a "
        "container on another network"
    )


def test_the_choice_is_the_callers_and_among_free_ports_only() -> None:
    seen: list[Sequence[int]] = []

    def last(numbers: Sequence[int]) -> int:
        seen.append(list(numbers))
        return numbers[-1]

    got = choose_ports(held(mapped(8001)), END, [wish(8000, 8003)], last)
    assert seen == [[8000, 8002, 8003]]
    assert [p.host_port for p in got] == [8003]


@pytest.mark.parametrize("seed", range(5))
def test_no_two_endpoints_ever_share_a_port(seed: int) -> None:
    rng, state = seeded(seed), State()
    for turn in range(60):
        wanted = []
        for _ in range(rng.randint(0, 3)):
            first = rng.randint(8000, 8020)
            host = rng.choice(["0.0.0.0", "10.0.0.1", "10.0.0.2"])
            wanted.append(wish(first, first + rng.choice([0, 3]), host))
        mine = f"{rng.randint(0, 9):012d}"
        try:
            got = choose_ports(state, mine, wanted, rng.choice)
        except (Conflict, Exhausted):
            continue
        others = [e for e in state.endpoints.values() if e.id != mine]
        state = state_of(*others, endpoint(mine, ports=got))
        assert len(got) == len(wanted), turn
    all_ports = [p for e in state.endpoints.values() for p in e.ports]
    assert len(all_ports) > 3
    for i, one in enumerate(all_ports):
        for two in all_ports[:i]:
            anywhere = IPv4Address(0) in (one.host_ip, two.host_ip)
            same_ip = anywhere or one.host_ip == two.host_ip
            assert not (same_ip and one.host_port == two.host_port), (one, two)
