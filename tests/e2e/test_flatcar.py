"""The Butane config for Flatcar: Ignition and systemd take it, and it installs the managed plugin.

Butane itself is in no package. What the config uses of it is translated here: texts of files become
URLs, and names of fields camel case. Ignition, which the result is for, checks that.
"""

from __future__ import annotations

import base64
import json
import re
import subprocess
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.bed import Bed, Host, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e import managed
from tests.e2e.helpers import FLANNEL, container, counted
from tests.e2e.managed import NAME, REFERENCE

EXAMPLE = PROJECT / "packaging/examples/flatcar.bu"
VERSIONS = {("flatcar", "1.0.0"): "3.3.0"}  # of Butane's config, and of Ignition's
CERTIFICATES = ("ca.pem", "client.pem", "client.key")  # as etcd.md makes them
SCRIPT = "/opt/bin/docker-flannel-plugin"
SETTINGS = "/etc/default/docker-flannel"
UNIT = "docker-flannel-plugin.service"
VERIFY = """
set -eu
mount --make-rprivate /
mount -t tmpfs tmpfs /opt
cp -a "$1/opt/." /opt
systemd-analyze verify --man=no "$1/etc/systemd/system/$2"
"""


def translated(node: Any, files: Path) -> Any:
    """Return Ignition's form of a part of a Butane config."""
    if isinstance(node, list):
        return [translated(item, files) for item in node]
    if not isinstance(node, dict):
        return node
    if node.keys() in ({"inline"}, {"local"}):
        text = node["inline"].encode() if "inline" in node else (files / node["local"]).read_bytes()
        return {"source": f"data:;base64,{base64.b64encode(text).decode()}"}
    camel = {re.sub("_(.)", lambda found: found[1].upper(), key): key for key in node}
    return {new: translated(node[old], files) for new, old in camel.items()}


def ignition(text: str, files: Path) -> dict[str, Any]:
    """Return the Ignition config of a Butane config whose local files are in a folder."""
    butane = yaml.safe_load(text)
    version = VERSIONS[butane.pop("variant"), butane.pop("version")]
    return {"ignition": {"version": version}, **translated(butane, files)}


def validate(config: dict[str, Any]) -> str:
    """Return what Ignition finds wrong with a config, "" if nothing."""
    ran = subprocess.run(
        ["ignition-validate", "-"],
        input=json.dumps(config),
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (ran.returncode == 0) or ran.stdout + ran.stderr
    return ran.stdout + ran.stderr


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """Return a folder with what the config takes from files."""
    for name in CERTIFICATES:
        (tmp_path / name).write_text(name)
    return tmp_path


def write(config: dict[str, Any], top: Path) -> None:
    """Write the files and units of an Ignition config as Ignition does."""
    for file in config["storage"]["files"]:
        path = top / file["path"].lstrip("/")
        path.parent.mkdir(parents=True, exist_ok=True)
        _, _, text = file["contents"]["source"].partition("data:;base64,")
        path.write_bytes(base64.b64decode(text))
        path.chmod(file["mode"])
    units = top / "etc/systemd/system"
    units.mkdir(parents=True)
    for unit in config["systemd"]["units"]:
        if "contents" in unit:
            (units / unit["name"]).write_text(unit["contents"])


def test_ignition_takes_it(certificates: Path) -> None:
    assert validate(ignition(EXAMPLE.read_text(), certificates)) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("mode: 0755", "mode: '0755'"),
        ("mode: 0755", "mod: 0755"),
        ("path: /opt/bin", "path: opt/bin"),
        ("name: docker.service", "name: docker"),
        ("[Service]", "[Service"),
    ],
)
def test_ignition_refuses_what_is_wrong(certificates: Path, old: str, new: str) -> None:
    text = EXAMPLE.read_text()
    assert old in text
    assert validate(ignition(text.replace(old, new), certificates)) != ""


def test_systemd_and_the_shell_take_what_it_writes(certificates: Path, tmp_path: Path) -> None:
    top = tmp_path / "top"
    write(ignition(EXAMPLE.read_text(), certificates), top)
    for words in (
        ("unshare", "-m", "sh", "-c", VERIFY, "sh", top, UNIT),
        ("shellcheck", top / SCRIPT.lstrip("/")),
    ):
        ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60)
        assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")


def test_networkd_is_kept_off_as_on_any_host(certificates: Path, tmp_path: Path) -> None:
    write(ignition(EXAMPLE.read_text(), certificates), tmp_path / "top")
    name = "05-docker-flannel.network"
    rules = [parsed(top / name) for top in (
        PROJECT / "packaging/networkd", tmp_path / "top/etc/systemd/network"
    )]  # fmt: skip
    assert rules[0] == rules[1] != {}


def parsed(file: Path) -> dict[str, dict[str, str]]:
    """Return the sections of a unit file."""
    config = ConfigParser(delimiters="=", interpolation=None)
    config.read_string(file.read_text())
    return {name: dict(config[name]) for name in config.sections()}


@pytest.fixture(scope="module")
def flatcar(bed: Bed) -> Iterator[Host]:
    """Yield a host with the config's files, and a registry with two versions of the plugin."""
    host = bed.host("h1")
    for name in CERTIFICATES:
        (host.folder / name).touch()
    top = host.folder / "top"
    write(ignition(EXAMPLE.read_text(), host.folder), top)
    host.run(
        "sh",
        "-c",
        "mkdir -p /opt/bin && cp -a $0/opt/bin/. /opt/bin && cp -a $0/etc/default /etc",
        top,
    )
    host.start_dockerd()
    host.load_image()
    yield host
    host.docker("plugin", "disable", "--force", NAME)
    host.docker("plugin", "rm", NAME)


def apply(host: Host, reference: str = f"{REFERENCE}:latest", *, check: bool = True) -> bool:
    """Run what the unit runs, with this plugin."""
    config = ConfigParser(delimiters="=", interpolation=None, strict=False)
    config.read(host.folder / f"top/etc/systemd/system/{UNIT}")
    assert config["Service"]["Environment"].startswith("PLUGIN=registry.example/")
    env = {**host.docker_env, "PLUGIN": reference}
    return host.run(config["Service"]["ExecStart"], env=env, limit_s=300, check=check).ok


def settings(host: Host, *lines: str) -> None:
    """Write the file of settings."""
    host.run("cp", "/dev/stdin", SETTINGS, input="".join(f"{line}\n" for line in lines))


def pid(host: Host) -> str:
    """Return the process that serves the plain name."""
    return host.run("pgrep", "-o", "-f", "^/opt/docker-flannel/bin/python.* serve").stdout


def variables(host: Host) -> list[str]:
    found: list[str] = managed.plugin(host)["Settings"]["Env"]
    return found


def test_installed_kept_set_and_updated(flatcar: Host) -> None:
    settings(flatcar, "# comment", "DOCKER_FLANNEL_LOG_LEVEL=debug", "FLANNELD_IFACE=")
    assert not apply(flatcar, check=False), "no registry yet: the unit starts it again"
    managed.serve_registry(flatcar, flatcar.folder.parent / "registry")
    managed.publish(flatcar, managed.built())
    apply(flatcar)
    shown = managed.plugin(flatcar)
    assert shown["Enabled"]
    assert "DOCKER_FLANNEL_LOG_LEVEL=debug" in variables(flatcar)
    flatcar.docker("network", "create", *FLANNEL, "app")
    peer = container(flatcar, "peer", "app")
    container(flatcar, "box", "app")
    before = pid(flatcar)
    apply(flatcar)
    assert pid(flatcar) == before, "nothing to do"
    with counted(flatcar, "box", peer):
        settings(flatcar, "DOCKER_FLANNEL_LOG_LEVEL=", "DOCKER_FLANNEL_REQUIRE_IPAM=1")
        apply(flatcar)
        assert {"DOCKER_FLANNEL_LOG_LEVEL=", "DOCKER_FLANNEL_REQUIRE_IPAM=1"} < set(
            variables(flatcar)
        )
        apply(flatcar, f"{REFERENCE}:next")
        after = managed.plugin(flatcar)
        assert (after["Id"], after["Enabled"]) == (shown["Id"], True)
        assert after["Config"]["Description"] == "next"
        flatcar.docker("plugin", "disable", "--force", NAME)
        apply(flatcar, f"{REFERENCE}:next")
        assert managed.plugin(flatcar)["Enabled"], "switched on again"
    settings(flatcar, "# no setting")
    apply(flatcar)
    assert managed.plugin(flatcar)["Config"]["Description"] != "next", "another version, no setting"
    wait_for(lambda: managed.status(flatcar)["problems"] == [], "all to be as it should be")
    flatcar.docker("rm", "-f", "box", "peer")
    flatcar.docker("network", "rm", "app")
