"""`init`: the network config, and etcd as it is set up on the first host."""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from driver.errors import BadRequest, Conflict, HostError, Unavailable
from driver.flannel.etcd.settings import EtcdSettings
from driver.flannel.network_config import read_config
from driver.flannel.records import config_key, lease_range, lease_value
from driver.setup.certificates import FILES
from driver.setup.commands import run
from driver.setup.etcd_server import PACKAGE, UNIT
from driver.setup.first_host import Network, init
from driver.setup.leaving import leave
from driver.setup.machine import UNIT as SERVICE
from driver.setup.token import Token
from tests.unit.setup.fake_machine import DEBIANS, IP, PREFIX, World

USUAL = Network(IPv4Network("10.2.0.0/16"))
OWN = f"https://{IP}:2379"


@pytest.fixture
def world(tmp_path: Path) -> World:
    """Return a machine without etcd."""
    return World(tmp_path)


def test_etcd_is_installed_limited_and_used(world: World) -> None:
    before = world.standing()
    overlay, token, status = init(world.machine, None, PREFIX, USUAL, {})
    assert (str(overlay.network), overlay.subnet_len) == ("10.2.0.0/16", 21)
    assert status["lease"]["source"] == "etcd"
    assert world.installed == [PACKAGE]
    assert world.limited == [PREFIX]
    environment = world.place.environment.read_text()
    assert f"ETCD_LISTEN_CLIENT_URLS={OWN}\n" in environment
    assert "ETCD_LISTEN_PEER_URLS=https://127.0.0.1:2380\n" in environment
    assert "ETCD_CLIENT_CERT_AUTH=true\n" in environment
    assert f"LoadCredential=server.key:{world.place.folder}/server.key" in (
        world.place.drop_in.read_text()
    )
    assert token.endpoints == OWN
    assert token.key == (world.place.folder / "client.key").read_text()
    assert Token.decode(token.encode()) == token
    again = init(world.machine, None, PREFIX, USUAL, {})
    assert again[:2] == (overlay, token)
    assert world.installed == [PACKAGE]
    assert leave(world.machine)
    assert world.standing() == {
        **before,
        "keys": {config_key(PREFIX): world.registry.values()[config_key(PREFIX)]},
    }
    assert not world.services.active(UNIT)
    assert not [f for f in FILES if (world.place.folder / f).exists()]


def test_an_etcd_that_ran_idle_runs_again_afterwards(world: World) -> None:
    world.services.units[UNIT] = (DEBIANS,)
    world.services.enable(UNIT)
    world.services.restart(UNIT)
    init(world.machine, None, PREFIX, USUAL, {})
    assert world.installed == []
    leave(world.machine)
    assert world.services.active(UNIT)
    assert world.services.enabled(UNIT)


def _drop_in(world: World) -> None:
    world.services.units[UNIT] = (DEBIANS, Path("/etc/systemd/system/etcd.service.d/my.conf"))


def _own_unit(world: World) -> None:
    world.services.units[UNIT] = (Path("/etc/systemd/system/etcd.service"),)


def _settings(world: World) -> None:
    world.services.units[UNIT] = (DEBIANS,)
    world.place.defaults.write_text("## etcd\n\nETCD_NAME=mine\n")


def _keys(world: World) -> None:
    world.services.units[UNIT] = (DEBIANS,)
    world.services.restart(UNIT)
    world.registry.change(("/somebody", "x"))


def _tls(world: World) -> None:
    world.services.units[UNIT] = (DEBIANS,)
    world.services.restart(UNIT)
    world.registry.stop("etcd cannot be reached: it hangs up")


def _data(world: World) -> None:
    world.services.units[UNIT] = (DEBIANS,)
    (world.place.data / "default" / "member").mkdir(parents=True)


def _port(world: World) -> None:
    world.listening.add(2379)


@pytest.mark.parametrize(
    ("used", "words"),
    [
        (_drop_in, "my.conf shows that etcd is used here already"),
        (_own_unit, "system/etcd.service shows that etcd is used here"),
        (_settings, "default/etcd has settings, so etcd is used here"),
        (_keys, "holds data of others"),
        (_tls, "etcd.service runs here, and etcd cannot be reached: it hangs up"),
        (_data, "has data in .*default, though it does not run"),
        (_port, "another program listens on 192.0.2.11:2379"),
    ],
)
def test_an_etcd_of_somebody_is_not_taken_over(
    used: Callable[[World], None], words: str, world: World
) -> None:
    used(world)
    before = world.standing()
    with pytest.raises(Conflict, match=f"{words}.*--etcd-endpoints"):
        init(world.machine, None, PREFIX, USUAL, {})
    assert world.standing() == before
    assert not world.place.folder.exists()


def test_a_drop_in_for_all_services_is_no_sign_of_use(world: World) -> None:
    world.services.units[UNIT] = (DEBIANS, Path("/run/systemd/system/service.d/zzz-lxc.conf"))
    _, _, status = init(world.machine, None, PREFIX, USUAL, {})
    assert status["lease"]["source"] == "etcd"


def test_a_package_that_cannot_be_installed(world: World) -> None:
    before = world.standing()

    def step() -> None:
        if world.told and world.told[-1].startswith("installing"):
            world.step = lambda: None
            raise HostError("the package etcd-server cannot be installed: no network")

    world.step = step
    with pytest.raises(HostError, match="no network"):
        init(world.machine, None, PREFIX, USUAL, {})
    assert world.standing() == before
    assert not world.place.folder.exists()


def test_an_etcd_that_is_somewhere_else(world: World, tmp_path: Path) -> None:
    other = EtcdSettings.read("http://192.0.2.1:2379", PREFIX)
    _, token, _ = init(world.machine, other, PREFIX, USUAL, {}, asked=True)
    assert token == Token("http://192.0.2.1:2379", PREFIX)
    assert world.variables()["FLANNELD_ETCD_ENDPOINTS"] == "http://192.0.2.1:2379"
    assert world.installed == []
    missing = EtcdSettings.read(
        "https://192.0.2.1:2379", certfile=str(tmp_path / "no.pem"), keyfile="/k"
    )
    with pytest.raises(BadRequest, match=r"no.pem cannot be read: No such file"):
        init(world.machine, missing, PREFIX, USUAL, {}, asked=True)
    with pytest.raises(Conflict, match="has joined another network"):
        init(world.machine, None, PREFIX, USUAL, {})


def test_another_prefix_is_another_network(world: World) -> None:
    init(world.machine, None, PREFIX, USUAL, {})
    before = world.standing()
    with pytest.raises(Conflict, match=f"has joined another network: .*_PREFIX is {PREFIX}; run"):
        init(world.machine, None, "/other", USUAL, {})
    assert world.standing() == before


def test_a_new_address_of_the_host(world: World) -> None:
    init(world.machine, None, PREFIX, USUAL, {})
    moved = {"FLANNELD_PUBLIC_IP": str(IP + 1)}
    _, token, _ = init(world.machine, None, PREFIX, USUAL, moved)
    assert (
        token.endpoints == world.variables()["FLANNELD_ETCD_ENDPOINTS"] == f"https://{IP + 1}:2379"
    )
    shown = run("openssl", "x509", "-noout", "-text", "-in", f"{world.place.folder}/server.pem")
    assert f"IP Address:{IP + 1}" in shown
    restarts = world.services.calls.count(f"restart {UNIT}")
    init(world.machine, None, PREFIX, USUAL, {})
    assert world.services.calls.count(f"restart {UNIT}") == restarts


def test_without_our_service_the_network_config_is_written(world: World) -> None:
    """The managed plugin, or a machine without systemd."""
    del world.services.units[SERVICE]
    other = EtcdSettings.read("http://192.0.2.1:2379", PREFIX)
    words = f"etcd has the network config .network 10.2.0.0/16.*, but there is no {SERVICE}"
    with pytest.raises(Unavailable, match=words):
        init(world.machine, other, PREFIX, USUAL, {}, asked=True)
    assert read_config(world.registry.values()[config_key(PREFIX)]).subnet_len == 21
    with pytest.raises(Unavailable, match=f"^there is no {SERVICE}"):
        init(world.machine, None, PREFIX, USUAL, {})
    assert not world.place.folder.exists()


def test_settings_by_hand_stay_as_they_are(world: World) -> None:
    world.settings.write_text("FLANNELD_ETCD_ENDPOINTS=http://192.0.2.1:2379\n")
    other = EtcdSettings.read("http://192.0.2.1:2379", PREFIX)
    init(world.machine, other, PREFIX, USUAL, {})
    assert world.settings.read_text() == "FLANNELD_ETCD_ENDPOINTS=http://192.0.2.1:2379\n"
    calls = len(world.services.calls)
    init(world.machine, other, PREFIX, USUAL, {})
    assert not [c for c in world.services.calls[calls:] if c.startswith("restart")]


def test_our_own_etcd_and_another_one(world: World) -> None:
    init(world.machine, None, PREFIX, USUAL, {})
    other = EtcdSettings.read("http://192.0.2.1:2379", PREFIX)
    with pytest.raises(Conflict, match="runs on this host: run `docker-flannel leave`"):
        init(world.machine, other, PREFIX, USUAL, {}, asked=True)


def test_the_first_host_leaves_last(world: World) -> None:
    init(world.machine, None, PREFIX, USUAL, {})
    for n in range(7):
        value = lease_value(IP + 1 + n, "vxlan", 1, f"02:00:00:00:00:0{n}")
        world.registry.change((f"{lease_range(PREFIX)}/10.2.{8 + 8 * n}.0-21", value))
    before = world.standing()
    with pytest.raises(Conflict, match=r"192.0.2.13, .*192.0.2.17 and 2 more use.*--with-etcd"):
        leave(world.machine)
    assert world.standing() == before
    world.registry.stop()
    with pytest.raises(Conflict, match=r"which goes with it, and .*--with-etcd"):
        leave(world.machine)
    world.registry.start()
    assert leave(world.machine, with_etcd=True)
    assert not world.place.own_data.exists()


def test_etcd_that_never_answers(world: World) -> None:
    machine = world.machine

    def limit(_: EtcdSettings) -> None:
        raise Unavailable("etcd cannot be reached")

    object.__setattr__(machine, "limit", limit)
    before = world.standing()
    with pytest.raises(Unavailable, match="etcd cannot be reached"):
        init(machine, None, PREFIX, USUAL, {})
    assert world.time >= 60
    assert world.standing() == before
