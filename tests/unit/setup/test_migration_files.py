"""Where dockerd's --bip is set, and how it changes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from driver.errors import Conflict
from driver.setup.migration.docker_files import (
    DROP_INS,
    OPTIONS,
    Changes,
    DockerFiles,
    apart,
    shown,
    with_bip,
    without_flanneld,
)

DAEMON = Path("/etc/docker/daemon.json")
UNIT = Path("/lib/systemd/system/docker.service")
DROP_IN = DROP_INS / "flannel.conf"
GENERATED = Path("/run/flannel/docker")
TEXT = 'DOCKER_NETWORK_OPTIONS=" --bip=10.2.1.1/24 --ip-masq=false --mtu=1450"\n'
START = "[Service]\nExecStart=/usr/sbin/dockerd -H fd:// $DOCKER_OPTS\n"
NEW, OUT = "10.2.1.1/26", "172.17.0.1/16"


def files(daemon: str = "", **texts: dict[Path, str]) -> DockerFiles:
    units = {UNIT: START, **texts.get("units", {})}
    return DockerFiles(DAEMON, daemon, units, texts.get("environment", {}))


def after(before: DockerFiles, changes: Changes) -> DockerFiles:
    """Return the files as systemd then has them."""
    units = {p: changes.get(p, text) or "" for p, text in before.units.items()}
    environment = dict(before.environment)
    if changes.get(OPTIONS):
        environment = {OPTIONS: changes[OPTIONS] or ""}
    return DockerFiles(DAEMON, changes.get(DAEMON, before.daemon) or "", units, environment)


def test_in_daemon_json_all_else_stays() -> None:
    before = files('{"bip": "10.2.1.1/24", "mtu": 1450}')
    assert before.sources() == [DAEMON]
    for change, bip in ((with_bip, NEW), (apart, OUT)):
        [(path, text)] = change(before, bip).items()
        assert path == DAEMON
        assert json.loads(text or "") == {"bip": bip, "mtu": 1450}


@pytest.mark.parametrize("text", ["", "\n", "{}", "{\n}\n", " { }"])
def test_an_empty_daemon_json(text: str) -> None:
    assert apart(files(text), OUT) == {DAEMON: f'{{\n  "bip": "{OUT}"\n}}\n'}


@pytest.mark.parametrize("text", ["[]", "{", '"x"'])
def test_a_daemon_json_that_is_none_is_not_replaced(text: str) -> None:
    with pytest.raises(Conflict, match="no JSON object any more: correct it first"):
        apart(files(text), OUT)


@pytest.mark.parametrize("dash", ["", "-"])
def test_options_that_flanneld_generates_get_a_copy_and_go_in_the_end(dash: str) -> None:
    lines = "[Unit]\nRequires=flanneld.service\nAfter=a.service flanneld.service\n[Service]\n"
    drop_in = f"{lines}EnvironmentFile={dash}{GENERATED}\nLimitNOFILE=9\n"
    before = files(units={DROP_IN: drop_in}, environment={GENERATED: TEXT})
    assert before.sources() == [GENERATED]
    changes = with_bip(before, NEW)
    assert changes == {
        OPTIONS: TEXT.replace("10.2.1.1/24", NEW),
        DROP_IN: f"{lines}EnvironmentFile={OPTIONS}\nLimitNOFILE=9\n",
    }
    shared = after(before, changes)
    assert shared.sources() == [OPTIONS]
    final = apart(shared, OUT)
    assert final[OPTIONS] is None
    assert json.loads(final[DAEMON] or "") == {"bip": OUT}
    assert final[DROP_IN] == (
        "[Unit]\n# by docker-flannel migrate: Requires=flanneld.service\nAfter=a.service\n"
        f"[Service]\n# by docker-flannel migrate: EnvironmentFile={OPTIONS}\nLimitNOFILE=9\n"
    )
    assert not without_flanneld(after(shared, final))


@pytest.mark.parametrize(
    "old", ["--bip=10.2.1.1/24", "--bip 10.2.1.1/24", "--bip=${FLANNEL_SUBNET}"]
)
def test_an_option_in_an_administrators_file_changes_there(old: str) -> None:
    drop_in = f"[Service]\nExecStart=\nExecStart=/usr/sbin/dockerd {old} --mtu=1450\n"
    before = files(units={DROP_IN: drop_in})
    for change, bip in ((with_bip, NEW), (apart, OUT)):
        [(path, text)] = change(before, bip).items()
        assert path == DROP_IN
        assert f"--bip{old[5]}{bip} --mtu=1450\n" in (text or "")
    default = Path("/etc/default/docker")
    options = files(environment={default: f'DOCKER_OPTS="{old}"\n'})
    assert with_bip(options, NEW) == {default: f'DOCKER_OPTS="--bip{old[5]}{NEW}"\n'}


def test_the_subnet_file_stays_since_this_plugin_writes_it_too() -> None:
    drop_in = (
        "[Service]\nEnvironmentFile=/run/flannel/subnet.env\n"
        "ExecStart=\nExecStart=/usr/sbin/dockerd --bip=${FLANNEL_SUBNET} --mtu=${FLANNEL_MTU}\n"
    )
    subnet = {Path("/run/flannel/subnet.env"): "FLANNEL_SUBNET=10.2.1.1/24\n"}
    changed = apart(files(units={DROP_IN: drop_in}, environment=subnet), OUT)
    assert changed == {DROP_IN: drop_in.replace("${FLANNEL_SUBNET}", OUT)}


def test_a_packages_drop_in_is_hidden_by_one_of_the_same_name_and_its_unit_refused() -> None:
    packaged = Path("/usr/lib/systemd/system/docker.service.d/flannel.conf")
    before = files(
        units={packaged: f"[Service]\nEnvironmentFile={GENERATED}\n"}, environment={GENERATED: TEXT}
    )
    assert with_bip(before, NEW)[DROP_IN] == f"[Service]\nEnvironmentFile={OPTIONS}\n"
    with pytest.raises(Conflict, match=f"{UNIT} sets --bip or names flanneld, but a package"):
        with_bip(DockerFiles(DAEMON, "", {UNIT: f"{START[:-1]} --bip=10.2.1.1/24\n"}), NEW)


def test_nothing_of_flanneld_nothing_to_change() -> None:
    other = "[Unit]\nAfter=network.target\n[Service]\nEnvironmentFile=-/run/other/docker\n"
    before = files(units={DROP_IN: other}, environment={Path("/run/other/docker"): "A=1\n"})
    assert not with_bip(before, NEW)
    assert not without_flanneld(before)


def test_lines_that_go_and_come_are_shown() -> None:
    told = list(shown({DROP_IN: "a\nc\n", OPTIONS: None}, {DROP_IN: "a\nb\n", OPTIONS: "x\n"}))
    assert told == [f"change {DROP_IN}", "  - b", "  + c", f"remove {OPTIONS}", "  - x"]
