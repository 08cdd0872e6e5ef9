"""Where the lease comes from."""

from __future__ import annotations

import os
from collections.abc import Iterable
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from driver.flannel.lease_types import REMOVE, SHOWN_USERS, users
from driver.flannel.local_source import DEFAULT_MTU, LocalSource
from driver.model.facts import Facts
from driver.model.records import Lease, State, replace
from tests.unit.contract import check_source
from tests.unit.fakes import FACTS
from tests.unit.sample import blocks, lease, network, pool

GOOD = """FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.5.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""
FROM_FILE = Lease(IPv4Network("10.244.0.0/16"), IPv4Network("10.244.5.0/24"), 1450, "subnet-file")
OWN = lease("10.2.0.0/24")
IN_USE = blocks("10.2.0.0/27")
USERS = "block 10.2.0.0/27 of no network here"


@pytest.fixture
def env(tmp_path: Path) -> Path:
    return tmp_path / "subnet.env"


def ask(
    source: LocalSource, stored: Lease | None, in_use: Iterable[IPv4Network], facts: Facts
) -> tuple[Lease | None, str]:
    """Ask with what is stored and the blocks in use; give the lease and what is wrong."""
    pools = {str(block): pool(str(block)) for block in in_use}
    standing = source.current(State(lease=stored, pools=pools), facts)
    return standing.lease, "; ".join(standing.problems)


def leases(wanted: str, file: Path, network: str = "10.2.0.0/16", length: int = 24) -> LocalSource:
    return LocalSource(wanted, IPv4Network(network), length, file)


@pytest.mark.parametrize("wanted", ["standalone", "subnet-file", "auto"])
@pytest.mark.parametrize("text", ["", GOOD])
def test_the_contract(env: Path, wanted: str, text: str) -> None:
    env.write_text(text)
    check_source(leases(wanted, env), State(), FACTS)


# --- standalone ---


def test_standalone_takes_the_first_prefix_that_overlaps_nothing(env: Path) -> None:
    facts = replace(FACTS, onlink=blocks("10.2.0.0/23", "10.2.2.7/32", "192.168.0.0/16"))
    got, problem = ask(leases("standalone", env), None, (), facts)
    assert (got, problem) == (lease("10.2.3.0/24"), "")
    assert ask(leases("standalone", env), None, (), FACTS)[0] == OWN


def test_standalone_takes_the_mtu_of_the_uplink(env: Path) -> None:
    source = leases("standalone", env)
    for facts, mtu in ((FACTS, 1450), (Facts(), DEFAULT_MTU)):
        got, _ = ask(source, None, (), facts)
        assert got is not None
        assert got.mtu == mtu


def test_standalone_stays_what_it_was(env: Path) -> None:
    facts = replace(FACTS, onlink=blocks("10.2.0.0/16"), uplink_mtu=9000)
    assert ask(leases("standalone", env), OWN, (), facts) == (OWN, "")


def test_standalone_finds_nothing_free(env: Path) -> None:
    facts = Facts(onlink=blocks("10.0.0.0/8"))
    assert ask(leases("standalone", env), None, (), facts) == (
        None,
        "every /24 of 10.2.0.0/16 overlaps addresses or routes of this host; set another "
        "DOCKER_FLANNEL_NETWORK",
    )


@pytest.mark.parametrize(("network", "length"), [("10.3.0.0/16", 24), ("10.2.0.0/16", 25)])
def test_standalone_changes_with_the_settings_unless_in_use(
    env: Path, network: str, length: int
) -> None:
    source = leases("standalone", env, network, length)
    got, problem = ask(source, OWN, (), FACTS)
    assert got is not None
    assert (got.network, got.subnet.prefixlen, problem) == (IPv4Network(network), length, "")
    assert ask(source, OWN, IN_USE, FACTS) == (
        OWN,
        f"the settings ask for a lease of /{length} from {network}, but 10.2.0.0/24 from "
        f"standalone is in use: {USERS}; it is kept until they are removed ({REMOVE})",
    )


def test_what_uses_the_lease_is_named() -> None:
    made, other = network(), pool("10.2.0.128/27")
    used = State(
        OWN,
        networks={made.id: made},
        pools={made.pool: replace(pool(), id=made.pool), other.id: other},
    )
    assert users(used) == f"network {made.id[:12]}, block 10.2.0.128/27 of no network here"
    assert users(State(OWN)) == ""
    many = {str(n): pool(f"10.2.0.{8 * n}/29") for n in range(SHOWN_USERS + 2)}
    assert users(State(OWN, pools=many)).endswith(" of no network here, 2 more")


# --- the file ---


def test_the_file_is_followed_even_when_in_use(env: Path) -> None:
    env.write_text(GOOD)
    source = leases("subnet-file", env)
    assert ask(source, None, (), FACTS) == (FROM_FILE, "")
    env.write_text(GOOD.replace("10.244.5.", "10.244.9.").replace("1450", "1400"))
    moved = replace(FROM_FILE, subnet=IPv4Network("10.244.9.0/24"), mtu=1400)
    assert ask(source, FROM_FILE, blocks("10.244.5.0/27"), FACTS) == (moved, "")


@pytest.mark.parametrize("text", [None, "", "nonsense"])
def test_what_cannot_be_read_leaves_the_stored_lease(env: Path, text: str | None) -> None:
    if text is not None:
        env.write_text(text)
    for in_use in ((), blocks("10.244.5.0/27")):
        got, problem = ask(leases("subnet-file", env), FROM_FILE, in_use, FACTS)
        assert got == FROM_FILE
        assert problem.startswith(f"lease file {env}")
    assert ask(leases("subnet-file", env), None, (), FACTS)[0] is None
    assert ask(leases("subnet-file", env), OWN, (), FACTS)[0] is None


def test_flannelds_lease_is_not_taken_where_a_lan_of_the_host_is(env: Path) -> None:
    env.write_text(GOOD)
    source, lan = leases("subnet-file", env), replace(FACTS, lans=(IPv4Network("10.244.5.0/25"),))
    fault = (
        "the lease 10.244.5.0/24 overlaps 10.244.5.0/25, a LAN of this host: choose a Network "
        "without it, or SubnetMin and SubnetMax around it, and have this host get another"
    )
    assert ask(source, None, [], lan) == (None, fault)
    assert ask(source, FROM_FILE, [], lan) == (None, fault)
    assert ask(source, FROM_FILE, IN_USE, lan) == (FROM_FILE, fault), "what runs goes on"
    around = replace(FACTS, lans=(IPv4Network("10.0.0.0/8"),))
    assert ask(source, None, [], around) == (FROM_FILE, ""), "the Network was chosen so"


def test_a_source_that_was_set_waits_until_networks_are_gone(env: Path) -> None:
    env.write_text(GOOD)
    kept, problem = ask(leases("subnet-file", env), OWN, IN_USE, FACTS)
    assert (kept, problem) == (
        OWN,
        "the settings ask for a lease from subnet-file, but 10.2.0.0/24 from standalone is in use: "
        f"{USERS}; it is kept until they are removed ({REMOVE})",
    )
    assert ask(leases("subnet-file", env), OWN, (), FACTS) == (FROM_FILE, "")
    assert ask(leases("standalone", env), FROM_FILE, (), FACTS) == (OWN, "")


# --- auto ---


def test_auto_is_the_file_when_it_is_there(env: Path) -> None:
    assert ask(leases("auto", env), None, (), FACTS) == (OWN, "")
    env.write_text(GOOD)
    assert ask(leases("auto", env), None, (), FACTS) == (FROM_FILE, "")
    assert ask(leases("auto", env), OWN, (), FACTS) == (FROM_FILE, "")


def test_auto_never_takes_the_plugins_own_file_for_a_flannelds(env: Path) -> None:
    before = replace(FROM_FILE, source="etcd")
    env.write_text(GOOD.replace("true", "false"))  # of a version that set no mark
    source = leases("auto", env)
    source.begin(State(lease=before), Facts())  # nobody could look for a flanneld
    assert "#" not in env.read_text()
    source.begin(State(lease=before), FACTS)
    assert ask(source, before, (), FACTS) == (OWN, "")
    assert ask(source, OWN, (), FACTS) == (OWN, "")
    told = ask(leases("subnet-file", env), None, (), FACTS)
    assert told == (None, f"lease file {env} was written by this plugin earlier; start flanneld")


def test_auto_never_switches_while_networks_exist(env: Path) -> None:
    got = ask(leases("auto", env), FROM_FILE, blocks("10.244.5.0/27"), FACTS)
    assert got == (FROM_FILE, f"lease file {env} is not there; start flanneld")
    env.write_text(GOOD)
    assert ask(leases("auto", env), OWN, IN_USE, FACTS) == (OWN, "")


def test_the_stamp_changes_with_the_file(env: Path) -> None:
    source = leases("auto", env)
    seen: list[Any] = [source.stamp()]
    assert seen == [None]
    env.write_text(GOOD)
    seen.append(source.stamp())
    env.write_text(GOOD + "A=b\n")
    seen.append(source.stamp())
    fresh = env.with_name("new")
    fresh.write_text(GOOD + "A=b\n")
    os.utime(fresh, ns=(0, env.stat().st_mtime_ns))
    fresh.replace(env)
    seen.append(source.stamp())
    assert len(set(seen)) == 4
    assert source.stamp() == seen[-1]
