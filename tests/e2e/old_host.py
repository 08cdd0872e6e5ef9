"""A host as those have it who use flanneld and dockerd's --bip, with a systemd that starts it all.

The systemd is a user's, in the machine's namespaces. It finds only the units that are written here:
a unit of the distribution would act on folders that machines share with the outside.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from ipaddress import IPv4Interface, IPv4Network
from pathlib import Path
from typing import Any

from tests import pages
from tests.bed import Host, Result, cgroups, wait_for
from tests.bed.host import PLUGIN_SOCKET
from tests.bed.rootfs import PROJECT
from tests.bed.unixhttp import answers
from tests.e2e.helpers import address, status

UNITS = "/etc/systemd/system"
RUNTIME = {"XDG_RUNTIME_DIR": "/run/user/0", "SYSTEMD_UNIT_PATH": UNITS, "HOME": "/root"}
NO_GENERATORS = {
    "SYSTEMD_GENERATOR_PATH": "/run/none",
    "SYSTEMD_ENVIRONMENT_GENERATOR_PATH": "/run/none",
}
REAL = "/usr/bin/systemctl.real"
SYSTEMCTL = f"""\
#!/bin/sh
# `systemctl` of a machine that systemd has booted, by a user's systemd
export {" ".join(f"{name}={value}" for name, value in RUNTIME.items())}
case $1 in
    enable | disable | is-enabled) {REAL} --root=/ "$@" || exit; exec {REAL} --user daemon-reload ;;
esac
exec {REAL} --user "$@"
"""
TARGET = "[Unit]\nDefaultDependencies=no\n"
SERVICE = f"[Service]\nType=notify\nWorkingDirectory={PROJECT}\nTimeoutStopSec=60\nRestart=always\n"
INSTALL = "[Install]\nWantedBy=multi-user.target\n"
FLANNELD = f"""\
[Unit]
Before=docker.service
{SERVICE}EnvironmentFile=/etc/default/flanneld
ExecStart={sys.executable} -m tests.e2e.flanneld
ExecStartPost=/usr/local/bin/docker-options
{INSTALL}RequiredBy=docker.service
"""
# what mk-docker-opts.sh -k DOCKER_NETWORK_OPTIONS -d /run/flannel/docker writes
OPTIONS = """\
#!/bin/sh
. /run/flannel/subnet.env
echo "DOCKER_NETWORK_OPTIONS=\\" --bip=$FLANNEL_SUBNET --ip-masq=false --mtu=$FLANNEL_MTU\\"" \\
    >/run/flannel/docker
"""
DOCKER = f"""\
[Unit]
After=docker-flannel.service
{SERVICE}KillMode=process
Environment=DOCKER_NETWORK_OPTIONS=
ExecStart=/usr/sbin/dockerd $DOCKER_NETWORK_OPTIONS
{INSTALL}"""
DROP_IN = f"{UNITS}/docker.service.d/flannel.conf"
BY_OPTIONS = """\
[Unit]
Requires=flanneld.service
After=flanneld.service network-online.target
[Service]
EnvironmentFile=/run/flannel/docker
"""
OURS = f"""\
[Unit]
Before=docker.service
After=flanneld.service
{SERVICE}KillMode=mixed
EnvironmentFile=-/etc/default/flanneld
EnvironmentFile=-/etc/default/docker-flannel
StateDirectoryMode=0700
ExecStart={sys.executable} -m driver serve
{INSTALL}"""
STACK = """\
version: "3.5"
services:
  web:
    image: box
    container_name: web-{host}
    network_mode: bridge
    command: httpd -f -p 80 -h /www
  near:
    image: box
    container_name: near-{host}
    network_mode: bridge
    command: sleep infinity
  aside:
    image: box
    container_name: aside-{host}
    command: sleep infinity
"""  # `aside` is on the stack's local bridge


@dataclass
class OldHost:
    """Such a host. `in_file`: --bip is in daemon.json, with live-restore, else an option."""

    host: Host
    etcd: str
    in_file: bool

    @property
    def name(self) -> str:
        return self.host.name

    def run(self, *argv: str, check: bool = True) -> Result:
        return self.host.run(*argv, check=check)

    def put(self, path: str, text: str, mode: str = "644") -> None:
        self.host.run(
            "sh",
            "-c",
            'mkdir -p "${1%/*}"; cat >"$1"; chmod "$2" "$1"',
            "put",
            path,
            mode,
            input=text,
        )

    def file(self, path: str) -> str:
        return self.run("cat", path, check=False).stdout

    def boot(self) -> None:
        """Start systemd with the units; it starts none of them."""
        host = self.host
        self.run("mkdir", "-p", "/run/systemd/system", "/run/user/0", "/run/none", UNITS)
        self.run("mount", "-t", "tmpfs", "none", UNITS)
        self.run("mv", "/usr/bin/systemctl", REAL)
        self.put("/usr/bin/systemctl", SYSTEMCTL, "755")
        self.put("/usr/local/bin/docker-options", OPTIONS, "755")
        self.put(
            "/etc/default/flanneld", f"FLANNELD_ETCD_ENDPOINTS={self.etcd}\nFLANNELD_IP_MASQ=true\n"
        )
        for name in ("basic", "shutdown", "multi-user"):
            self.put(f"{UNITS}/{name}.target", TARGET)
        for name, text in {"flanneld": FLANNELD, "docker": DOCKER, "docker-flannel": OURS}.items():
            log = self.host.folder / f"{name}.log"
            output = f"[Service]\nStandardOutput=append:{log}\nStandardError=append:{log}\n"
            self.put(f"{UNITS}/{name}.service", f"{text}{output}")
        bed, own = host.cgroup
        host.popen(
            *cgroups.joining(bed, f"{own}/systemd"), "/usr/lib/systemd/systemd", "--user",
            "--unit=multi-user.target", "--log-target=console",
            env={**RUNTIME, **NO_GENERATORS}, log_name="systemd",
        )  # fmt: skip
        wait_for(
            lambda: self.run("systemctl", "is-active", "multi-user.target", check=False).ok,
            "systemd",
        )

    def start(self) -> None:
        """Start systemd, flanneld and dockerd, and the stack on docker0."""
        host = self.host
        self.boot()
        self.run("systemctl", "enable", "flanneld.service", "docker.service")
        self.run("systemctl", "start", "flanneld.service")
        if self.in_file:
            host.set_up_dockerd(bip=self.bip(), ip_masq=False, mtu=1450, live_restore=True)
        else:
            host.set_up_dockerd()
            self.put(DROP_IN, BY_OPTIONS)
            self.run("systemctl", "daemon-reload")
        self.run("systemctl", "start", "docker.service")
        self.run(
            "iptables", "-P", "FORWARD", "DROP"
        )  # as Docker does unless the host forwards already
        host.load_image()
        self.stack(STACK)

    def killed_at_the_restart(self, *words: str) -> None:
        """Run a step of the migration and kill it when it restarts Docker."""
        argv = (sys.executable, "-m", "driver", "migrate", *words)
        process = self.host.popen(*argv, cwd=PROJECT, log_name=f"killed-{len(words)}")
        wait_for(lambda: "run systemctl restart docker" in process.log(), "the restart")
        process.kill()
        assert "done" not in process.log()

    def bip(self) -> str:
        return dict(line.split("=") for line in self.file("/run/flannel/subnet.env").split())[
            "FLANNEL_SUBNET"
        ]

    def stack(self, text: str) -> None:
        """Start the stack; one that runs is taken down first."""
        down, up = pages.commands("docs/migration.md", "Your stacks")
        self.folder.mkdir(exist_ok=True)
        file = self.folder / "docker-compose.yml"
        if file.exists():
            self.compose(*down.split()[2:])
        file.write_text(text.format(host=self.name))
        self.compose(*up.split()[2:])

    def compose(self, *words: str) -> None:
        """Run Compose on the stack."""
        self.host.compose(*words, cwd=self.folder)

    @property
    def folder(self) -> Path:
        """The stack's folder."""
        return self.host.folder / "shop"

    def install(self) -> None:
        """Start this plugin."""
        self.run("systemctl", "enable", "docker-flannel.service")
        self.run("systemctl", "start", "docker-flannel.service")
        wait_for(lambda: answers(self.host.path(PLUGIN_SOCKET), "GET", "/status"), "the plugin", 60)
        wait_for(lambda: status(self.host)["lease"], f"the lease of {self.name}")

    def command(self, *words: str, check: bool = True) -> Result:
        """Run docker-flannel; it takes as long as dockerd takes to restart."""
        return self.host.run(
            sys.executable, "-m", "driver", *words, cwd=PROJECT, check=check, limit_s=300
        )

    def web(self, network: str = "bridge") -> str:
        """Return the address of the web server."""
        return address(self.host, f"web-{self.name}", network)

    def docker0(self) -> IPv4Network:
        """Return docker0's prefix."""
        rows: list[dict[str, Any]] = json.loads(
            self.run("ip", "-j", "-4", "addr", "show", "docker0").stdout
        )
        [found] = rows[0]["addr_info"]
        return IPv4Interface((found["local"], found["prefixlen"])).network

    def containers(self) -> list[str]:
        """List the running containers."""
        return sorted(self.host.docker("ps", "--format", "{{.Names}}").stdout.split())
