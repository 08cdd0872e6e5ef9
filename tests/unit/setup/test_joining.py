"""`join` and `leave` on a machine in memory: what they write, undo and refuse."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driver.errors import BadRequest, Conflict, Exhausted, FlannelError, HostError, Unavailable
from driver.flannel.records import config_key, lease_range, lease_value
from driver.setup.certificates import make
from driver.setup.entering import join
from driver.setup.leaving import leave
from driver.setup.machine import UNIT
from driver.setup.token import Token
from tests.unit.setup.fake_machine import CONFIG, IP, PREFIX, World

LEASES = f"{lease_range(PREFIX)}/"
PLAIN = Token("http://192.0.2.1:2379", PREFIX)
SETTINGS = "# mine\nDOCKER_FLANNEL_FIREWALL=nft\nFLANNELD_IFACE=eth1\n"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a machine beside an etcd with a network config."""
    made = World(tmp_path)
    made.registry.change((config_key(PREFIX), CONFIG))
    made.settings.write_text(SETTINGS)
    return made


@pytest.fixture
def token(tmp_path_factory: pytest.TempPathFactory) -> Token:
    """Return a token with certificates that openssl has made."""
    folder = tmp_path_factory.mktemp("authority")
    make(folder, (IP,))
    texts = [(folder / name).read_text() for name in ("ca.pem", "client.pem", "client.key")]
    return Token("https://192.0.2.1:2379", PREFIX, *texts)


def test_join_and_leave(world: World, token: Token) -> None:
    before = world.standing()
    status = join(world.machine, token.encode(), {"FLANNELD_IFACE": "eth0"})
    assert status["lease"]["subnet"] == "10.2.0.0/21"
    found = world.variables()
    assert found["FLANNELD_ETCD_ENDPOINTS"] == "https://192.0.2.1:2379"
    assert found["FLANNELD_IFACE"] == "eth0"
    assert Path(found["FLANNELD_ETCD_KEYFILE"]).read_text() == token.key
    assert Path(found["FLANNELD_ETCD_KEYFILE"]).stat().st_mode & 0o777 == 0o600
    assert world.settings.read_text().startswith("# mine\nDOCKER_FLANNEL_FIREWALL=nft\n")
    assert token.key not in "".join(world.told)
    assert leave(world.machine)
    assert world.standing() == before
    assert not world.place.folder.exists()
    assert leave(world.machine) is False


def test_a_second_time_nothing_is_done(world: World, token: Token) -> None:
    join(world.machine, token.encode(), {})
    before, calls = world.standing(), len(world.services.calls)
    join(world.machine, token.encode(), {})
    assert world.standing() == before
    assert not [c for c in world.services.calls[calls:] if c.startswith(("restart", "stop"))]


def test_a_setting_that_somebody_has_changed_since_stays(world: World) -> None:
    join(world.machine, PLAIN.encode(), {"FLANNELD_IFACE": "eth0"})
    world.settings.write_text(world.settings.read_text().replace("=eth0", "=eth7"))
    leave(world.machine)
    assert world.settings.read_text() == SETTINGS.replace("=eth1", "=eth7")


def refused(world: World, kind: type[FlannelError], words: str, token: Token = PLAIN) -> None:
    """Join in vain; nothing may have changed."""
    before = world.standing()
    with pytest.raises(kind, match=words):
        join(world.machine, token.encode(), {})
    assert world.standing() == before
    assert not world.place.folder.exists()


def test_networks_of_another_lease(world: World) -> None:
    world.networks = [{"id": "b" * 64}, {"id": "a" * 64}]
    refused(world, Conflict, r"10.2.0.0/20 \(standalone\).*docker network rm app bbbbbbbbbbbb`")


def test_a_lease_from_elsewhere(world: World) -> None:
    with world.settings.open("a") as file:
        file.write("DOCKER_FLANNEL_LEASE=subnet-file\n")
    refused(world, Conflict, "DOCKER_FLANNEL_LEASE is subnet-file in .*: remove that line")


@pytest.mark.parametrize(
    "line",
    [
        "FLANNELD_ETCD_ENDPOINTS=http://192.0.2.9:2379\n",
        "FLANNELD_ETCD_ENDPOINTS=http://192.0.2.1:2379\nFLANNELD_ETCD_PREFIX=/other\n",
    ],
)
def test_another_network(world: World, line: str) -> None:
    with world.settings.open("a") as file:
        file.write(line)
    refused(world, Conflict, "has joined another network: FLANNELD_ETCD_ENDPOINTS is http://192")


def test_the_same_etcd_at_a_new_address(world: World, token: Token) -> None:
    join(world.machine, token.encode(), {})
    moved = Token("https://192.0.2.77:2379", PREFIX, *token_files(token))
    join(world.machine, moved.encode(), {})
    assert world.variables()["FLANNELD_ETCD_ENDPOINTS"] == "https://192.0.2.77:2379"
    leave(world.machine)
    assert world.settings.read_text() == SETTINGS


def token_files(token: Token) -> tuple[str, str, str]:
    """Return the texts of a token's files."""
    return token.authority, token.certificate, token.key


def test_etcd_out_of_reach(world: World, token: Token) -> None:
    world.registry.stop("etcd cannot be reached: https://192.0.2.1:2379: no answer in time")
    refused(world, Unavailable, "no answer in time; does etcd run there.*TCP port 2379", token)


def test_no_network_config(world: World) -> None:
    world.registry.change((config_key(PREFIX), None))
    refused(world, Unavailable, "there is no network config in etcd at /coreos.com/network/config")


def test_no_lease_is_left(world: World) -> None:
    config = json.loads(CONFIG) | {"Network": "10.2.0.0/19"}
    world.registry.change((config_key(PREFIX), json.dumps(config)))
    for third in (8, 16, 24):
        world.registry.change((f"{LEASES}10.2.{third}.0-21", "somebody's"))
    refused(world, Exhausted, "no free subnet of /21 from 10.2.8.0 to 10.2.24.0")


def test_the_clock_is_wrong(world: World, token: Token) -> None:
    early = world.machine
    object.__setattr__(early, "now", lambda: 0.0)
    with pytest.raises(Unavailable, match="valid from"):
        join(early, token.encode(), {})


def test_a_service_that_does_not_start(world: World) -> None:
    world.breaks = HostError("Job for docker-flannel.service failed")
    refused(world, HostError, "Job for docker-flannel.service failed")


@pytest.mark.parametrize("phase", ["refused", "lost", "beside"])
def test_a_lease_that_will_never_be(world: World, phase: str) -> None:
    world.phase, world.problems = phase, ["another host has our public IP"]
    before = world.standing()
    with pytest.raises(Conflict, match=f"{phase}: another host has our public IP"):
        join(world.machine, PLAIN.encode(), {})
    left = world.standing()
    assert {**left, "keys": before["keys"]} == before


def test_beside_a_flanneld_join_names_the_way_from_it(world: World) -> None:
    world.phase, world.problems = "beside", ["a flanneld runs"]
    with pytest.raises(Conflict, match="a flanneld runs; `docker-flannel migrate` shows"):
        join(world.machine, PLAIN.encode(), {})


def test_a_public_ip_that_is_none(world: World) -> None:
    before = world.standing()
    with pytest.raises(BadRequest, match="--public-ip 'here' is no IPv4 address"):
        join(world.machine, PLAIN.encode(), {"FLANNELD_PUBLIC_IP": "here"})
    assert world.standing() == before


def test_one_at_a_time(world: World) -> None:
    busy = pytest.raises(Conflict, match="another `init`, `join` or `leave` is at work")
    with world.machine.alone(), busy, world.machine.alone():
        pytest.fail("two at once")
    with world.machine.alone():
        pass


def test_a_lease_that_takes_longer_may_still_come(world: World) -> None:
    world.phase, world.problems = "unreachable", ["etcd cannot be reached"]
    with pytest.raises(Unavailable, match=r"no lease after 60 s \(unreachable: etcd cannot be"):
        join(world.machine, PLAIN.encode(), {})
    assert 60 <= world.time < 62
    assert "FLANNELD_ETCD_ENDPOINTS" in world.variables()
    assert sum("waiting for the lease" in told for told in world.told) == 1, "told once"
    world.phase = "held"
    join(world.machine, PLAIN.encode(), {})


def test_reasons_that_alternate_are_told_once(world: World) -> None:
    world.phase, world.problems = "unreachable", ["no answer", "no space"]
    world.step = world.problems.reverse
    with pytest.raises(Unavailable, match="no lease after 60 s"):
        join(world.machine, PLAIN.encode(), {})
    assert sum("waiting for the lease" in told for told in world.told) == 2


def test_a_public_ip_that_another_host_may_have_is_watched(world: World) -> None:
    value = lease_value(IP, "vxlan", 1, "02:00:00:00:00:99")
    world.registry.change((f"{LEASES}10.2.16.0-21", value))
    join(world.machine, PLAIN.encode(), {})
    assert world.time >= 5


# --- leave ---


def test_leave_names_the_networks(world: World) -> None:
    join(world.machine, PLAIN.encode(), {})
    world.networks = [{"id": "a" * 64}]
    before = world.standing()
    with pytest.raises(Conflict, match=r"10.2.0.0/21 .etcd., which goes.*docker network rm app"):
        leave(world.machine)
    assert world.standing() == before


def test_leave_gives_up_its_own_lease_only(world: World) -> None:
    join(world.machine, PLAIN.encode(), {})
    others = f"{LEASES}10.2.64.0-21"
    world.registry.change((others, lease_value(IP, "vxlan", 1, "02:00:00:00:00:99")))
    leave(world.machine)
    assert set(world.registry.values()) == {config_key(PREFIX), others}
    assert "gave up the lease of 10.2.0.0/21" in world.told


def test_leave_without_etcd(world: World) -> None:
    join(world.machine, PLAIN.encode(), {})
    world.registry.stop()
    leave(world.machine)
    assert world.settings.read_text() == SETTINGS
    assert any("until it runs out, in at most a day" in told for told in world.told)


def test_settings_by_hand_are_not_ours_to_remove(world: World) -> None:
    with world.settings.open("a") as file:
        file.write("FLANNELD_ETCD_ENDPOINTS=http://192.0.2.1:2379\n")
    before = world.standing()
    with pytest.raises(Conflict, match="neither `init` nor `join` wrote: remove it from"):
        leave(world.machine)
    assert world.standing() == before


def test_a_record_that_cannot_be_read(world: World) -> None:
    join(world.machine, PLAIN.encode(), {})
    (world.place.folder / "joined.json").write_text("{")
    with pytest.raises(HostError, match=r"joined.json cannot be read.*says what"):
        leave(world.machine)


def test_no_service(world: World) -> None:
    del world.services.units[UNIT]
    with pytest.raises(
        Unavailable, match=r"no docker-flannel.service on this host.*managed plugin"
    ):
        join(world.machine, PLAIN.encode(), {})
