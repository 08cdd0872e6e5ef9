"""Hosts that `docker-flannel init` and `join` set up, on a bed."""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.bed import Bed, Host, Process, Result, wait_for
from tests.bed.rootfs import PROJECT
from tests.e2e.helpers import COMMAND, status

FOLDER = Path("/etc/docker-flannel")
SETTINGS = Path("/etc/default/docker-flannel")
UNIT = "docker-flannel.service"
LEASES = "/coreos.com/network/subnets/"
INSTALLED = "/opt/docker-flannel/bin/docker-flannel"


def machine(bed: Bed, name: str, *, docker: bool = True) -> Host:
    """Add a host as it is after the installation of docker-flannel and Docker."""
    host = bed.host(name)
    stand_in = (
        f'#!/bin/sh\nexec {sys.executable} -I {Path(__file__).with_name("systemctl.py")} "$@"\n'
    )
    host.run("tee", "/usr/sbin/systemctl", input=stand_in)
    host.run("chmod", "755", "/usr/sbin/systemctl")
    host.run("mkdir", "-p", "/run/systemd/system", "/etc/systemd/system")
    text = (PROJECT / "packaging" / UNIT).read_text().replace(INSTALLED, str(COMMAND))
    host.run("tee", f"/etc/systemd/system/{UNIT}", input=text)
    host.run("rm", "-rf", SETTINGS, FOLDER, "/var/lib/etcd/default", "/var/lib/etcd/docker-flannel")
    host.run("systemctl", "start", UNIT)
    if docker:
        host.start_dockerd()
        host.load_image()
    return host


def flannel(host: Host, *words: str, check: bool = True, given: str | None = None) -> Result:
    """Run docker-flannel on a host; `given` is its standard input."""
    return host.run(COMMAND, *words, check=check, input=given, limit_s=120)


def refused(host: Host, *words: str, given: str | None = None) -> str:
    """Run a command that has to fail; return its sentence, the last line."""
    result = flannel(host, *words, check=False, given=given)
    assert not result.ok, result
    assert "Traceback" not in result.stderr, result.stderr
    return result.stderr.strip().splitlines()[-1]


def token(result: Result) -> str:
    """Return the token that `init` printed."""
    [found] = re.findall(r"^docker-flannel join (\S+)$", result.stdout, re.MULTILINE)
    return str(found)


def subnet(host: Host) -> str:
    """Return the subnet of the lease that a host holds in etcd."""
    found = status(host)
    assert found["phase"] == "held", found
    assert found["lease"]["source"] == "etcd", found
    return str(found["lease"]["subnet"])


def meet(*hosts: Host) -> None:
    """Wait until each host has the others as peers and nobody else."""
    for host in hosts:
        others = {subnet(h) for h in hosts if h is not host}
        wait_for(lambda: {p["subnet"] for p in status(host)["peers"]} == others, host.name, 30)


def etcdctl(host: Host, *words: str, user: str = "root", check: bool = True) -> Result:
    """Run etcdctl on the first host, as one of etcd's users."""
    files = (
        f"--cacert={FOLDER}/ca.pem",
        f"--cert={FOLDER}/{user}.pem",
        f"--key={FOLDER}/{user}.key",
    )
    at = f"--endpoints=https://{host.address}:2379"
    return host.run("etcdctl", at, *files, *words, env={"ETCDCTL_API": "3"}, check=check)


def leases(host: Host) -> set[str]:
    """Return the subnets that are leased in the etcd of the first host."""
    keys = etcdctl(host, "get", "--prefix", "--keys-only", LEASES).stdout.split()
    return {key.removeprefix(LEASES).replace("-", "/") for key in keys}


def started(host: Host, *words: str) -> Process:
    """Start docker-flannel and do not wait for its end."""
    return host.popen(COMMAND, *words, log_name=f"command-{len(host.history)}")
