"""What the managed plugin is configured with, in Docker's words, the settings' and the docs'."""

from __future__ import annotations

import json
import re
from pathlib import Path

from driver.config import SETTINGS
from driver.host.upgrade import FOLDER as FOLDER_KEPT

FOLDER = Path(__file__).parents[2] / "plugin"
CONFIG = json.loads((FOLDER / "config.json").read_text())
PLAIN_NAME = "/host/plugins/flannel.sock"


def test_every_setting_can_be_set() -> None:
    for setting, variable in zip(SETTINGS, CONFIG["env"], strict=True):
        assert variable["name"] == setting.variable
        assert variable["description"] == setting.help
        assert variable["settable"] == ["value"]
        more = f",{PLAIN_NAME}" if setting.option == "--socket" else ""
        assert variable["value"] == setting.default + more


def test_docker_finds_it_as_both_drivers() -> None:
    interface = CONFIG["interface"]
    assert interface["types"] == ["docker.networkdriver/1.0", "docker.ipamdriver/1.0"]
    [first, plain] = {v["name"]: v["value"] for v in CONFIG["env"]}["DOCKER_FLANNEL_SOCKET"].split(
        ","
    )
    assert first == f"/run/docker/plugins/{interface['socket']}"
    assert plain == PLAIN_NAME
    mounts = {m["source"]: m["destination"] for m in CONFIG["mounts"]}
    assert mounts["/run/docker/plugins"] == str(Path(PLAIN_NAME).parent)


def test_the_docs_name_exactly_what_is_granted() -> None:
    granted = [
        *CONFIG["linux"]["capabilities"],
        f"{CONFIG['network']['type']} network",
        *(f"{m['source']} on {m['destination']}" for m in CONFIG["mounts"]),
    ]
    section = (FOLDER / "README.md").read_text().split("## What it is granted")[1].split("\n## ")[0]
    rows = re.findall(r"^\| (`.*?) \|", section, re.MULTILINE)
    assert [row.replace("`", "") for row in rows] == granted
    assert CONFIG["linux"].keys() == {"capabilities"}
    assert not CONFIG.keys() & {"pidhost", "ipchost", "args"}
    assert CONFIG["propagatedMount"] == str(FOLDER_KEPT)
