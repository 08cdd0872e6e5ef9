"""The lease file: flanneld's, ours, and whatever else may be in its place."""

from __future__ import annotations

import os
import threading
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from driver.errors import StoreError, Unavailable
from driver.files import LARGEST
from driver.flannel.local_source import LocalSource
from driver.flannel.subnet_env import (
    MARK,
    SubnetFile,
    flannelds_lease,
    is_ours,
    mark,
    read_subnet_file,
    write_docker_options,
    write_subnet_env,
)
from driver.model.records import Lease, State, replace
from tests.unit.fakes import FACTS

GOOD = """FLANNEL_NETWORK=10.244.0.0/16
FLANNEL_SUBNET=10.244.5.1/24
FLANNEL_MTU=1450
FLANNEL_IPMASQ=true
"""
FROM_FILE = Lease(IPv4Network("10.244.0.0/16"), IPv4Network("10.244.5.0/24"), 1450, "subnet-file")
OURS = replace(FROM_FILE, source="etcd")
LIMIT_S = 20


@pytest.fixture
def env(tmp_path: Path) -> Path:
    return tmp_path / "subnet.env"


@pytest.mark.parametrize(
    "text",
    [
        GOOD,
        GOOD.replace("\n", "\r\n"),
        "# by flanneld\n\n" + GOOD,
        GOOD.replace("=", " = ").replace(" = ", "="),
        "FLANNEL_IPV6_NETWORK=fd00::/64\n" + GOOD,
        GOOD.replace("10.244.5.1", "10.244.5.0"),
        GOOD.rstrip("\n"),
    ],
)
def test_the_file_is_read(env: Path, text: str) -> None:
    env.write_text(text)
    assert read_subnet_file(env) == SubnetFile(FROM_FILE, ipmasq=True)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("FLANNEL_NETWORK", "X", "has no line FLANNEL_NETWORK="),
        ("FLANNEL_SUBNET", "X", "has no line FLANNEL_SUBNET="),
        ("FLANNEL_MTU", "X", "has no line FLANNEL_MTU="),
        ("FLANNEL_MTU=1450", "FLANNEL_MTU", "line 3 is not NAME=VALUE: 'FLANNEL_MTU'"),
        ("FLANNEL_MTU=1450", "garbage " * 40, "line 3 is not NAME=VALUE: 'garbage garbage"),
        ("10.244.0.0/16", "10.244.0.1/16", "has a bad value: 10.244.0.1/16 has host bits set"),
        ("10.244.0.0/16", "", "has a bad value"),
        ("10.244.5.1/24", "10.244.5.1/33", "has a bad value"),
        ("10.244.5.1/24", "fd00::1/64", "has a bad value"),
        ("10.244.5.1/24", "10.245.5.1/24",
         "FLANNEL_SUBNET 10.245.5.0/24 is not inside FLANNEL_NETWORK 10.244.0.0/16"),
        ("1450", "many", "has a bad value: invalid literal"),
        ("1450", "", "has a bad value"),
        ("1450", "575", "FLANNEL_MTU 575 is not from 576 to 65535"),
        ("1450", "65536", "FLANNEL_MTU 65536 is not from 576 to 65535"),
        ("1450", "-1450", "FLANNEL_MTU -1450 is not from"),
    ],
)  # fmt: skip
def test_a_bad_file_is_named_with_what_is_wrong(env: Path, old: str, new: str, words: str) -> None:
    env.write_text(GOOD.replace(old, new))
    with pytest.raises(Unavailable, match=f"^lease file {env}") as caught:
        read_subnet_file(env)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_or_cannot_be_read(env: Path) -> None:
    with pytest.raises(Unavailable, match=f"^lease file {env} is not there; start flanneld$"):
        read_subnet_file(env)
    env.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(Unavailable, match=f"^lease file {env} cannot be read: .*utf-8"):
        read_subnet_file(env)
    with pytest.raises(Unavailable, match="cannot be read: it is not a regular file"):
        read_subnet_file(env.parent)


@pytest.mark.parametrize("kind", ["fifo", "link to a fifo", "folder", "device", "huge"])
def test_what_is_no_small_file_is_named_and_not_waited_for(env: Path, kind: str) -> None:
    if kind == "folder":
        env.mkdir()
    elif kind == "device":
        env.symlink_to("/dev/zero")
    elif kind == "huge":
        with env.open("w") as file:
            file.truncate(1 << 33)
    else:
        target = env.with_name("fifo") if kind == "link to a fifo" else env
        os.mkfifo(target)
        if target != env:
            env.symlink_to(target)
    source, said = LocalSource("auto", IPv4Network("10.2.0.0/16"), 24, env), list[str]()

    def ask() -> None:
        said.extend(source.current(State(), FACTS).problems)

    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(LIMIT_S)
    assert not asking.is_alive(), "it waits for what is no file"
    why = f"it has more than {LARGEST} bytes" if kind == "huge" else "it is not a regular file"
    assert said == [f"lease file {env} cannot be read: {why}"]


# --- our own ---


def test_our_files_are_as_flanneld_writes_them_but_for_the_mark(tmp_path: Path) -> None:
    env, options = tmp_path / "run" / "subnet.env", tmp_path / "docker_opts.env"
    write_subnet_env(env, OURS)
    assert env.read_text() == f"{MARK}\n" + GOOD.replace("true", "false")
    assert env.stat().st_mode & 0o777 == 0o644
    assert read_subnet_file(env) == SubnetFile(FROM_FILE, marked=True)
    before = env.stat().st_ino
    write_subnet_env(env, replace(OURS, mtu=1400))
    assert env.stat().st_ino != before
    assert [p.name for p in env.parent.iterdir()] == ["subnet.env"]
    write_docker_options(options, OURS)
    assert options.read_text() == (
        'DOCKER_OPT_BIP="--bip=10.244.5.1/24"\nDOCKER_OPT_IPMASQ="--ip-masq=true"\n'
        'DOCKER_OPT_MTU="--mtu=1450"\n'
        'DOCKER_OPTS=" --bip=10.244.5.1/24 --ip-masq=true --mtu=1450"\n'
    )
    with pytest.raises(StoreError, match="cannot be written"):
        write_subnet_env(env / "x", OURS)


@pytest.mark.parametrize("kind", ["fifo", "link"])
def test_what_is_in_the_way_of_our_file_is_replaced(env: Path, kind: str) -> None:
    other, passing = env.with_name("other"), env.with_name(f".{env.name}")
    other.write_text("as it was")
    for place in (env, passing):
        if kind == "fifo":
            os.mkfifo(place)
        else:
            place.symlink_to(other)
    writing = threading.Thread(target=write_subnet_env, args=(env, OURS), daemon=True)
    writing.start()
    writing.join(LIMIT_S)
    assert not writing.is_alive(), "it waits for who reads"
    assert read_subnet_file(env).marked
    assert other.read_text() == "as it was"


def test_our_own_file_is_never_taken_for_a_flannelds(env: Path) -> None:
    write_subnet_env(env, OURS)
    assert is_ours(env, None, alone=False)
    with pytest.raises(Unavailable, match=f"^lease file {env} was written by this plugin"):
        flannelds_lease(env)
    env.write_text(GOOD)
    assert flannelds_lease(env) == FROM_FILE


@pytest.mark.parametrize(
    ("stored", "alone", "masq", "ours"),
    [
        (OURS, True, "false", True),
        (OURS, False, "false", False),
        (OURS, True, "true", False),
        (None, True, "false", False),
        (replace(OURS, source="standalone"), True, "false", False),
        (replace(OURS, subnet=IPv4Network("10.244.6.0/24")), True, "false", False),
    ],
)
def test_our_file_from_before_the_mark_is_known_by_the_stored_lease(
    env: Path, stored: Lease | None, alone: bool, masq: str, ours: bool
) -> None:
    env.write_text(GOOD.replace("true", masq))
    assert is_ours(env, stored, alone=alone) is ours
    assert not is_ours(env, None, alone=True), "to look marks nothing"
    mark(env, stored, alone=alone)
    assert is_ours(env, None, alone=True) is ours, "and is known for good"
    assert read_subnet_file(env).lease == FROM_FILE


def test_a_file_that_cannot_be_read_is_not_ours(env: Path) -> None:
    for text in (None, "nonsense"):
        if text:
            env.write_text(text)
        assert not is_ours(env, OURS, alone=True)
