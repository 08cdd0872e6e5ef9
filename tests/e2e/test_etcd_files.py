"""Trouble with the files of TLS is etcd's trouble: a host with a lease serves its containers."""

from __future__ import annotations

from pathlib import Path

from tests.bed import Bed, wait_for
from tests.e2e.etcd_bed import Authority
from tests.e2e.helpers import FLANNEL, container, network, pings, status, web

CONFIG = '{"Network": "10.9.0.0/16", "SubnetLen": 24, "Backend": {"Type": "vxlan"}}'


def test_a_ca_that_is_missing_garbage_and_back(bed: Bed) -> None:
    host = bed.host("h1")
    host.start_dockerd()
    host.load_image()
    authority = Authority(host.folder)
    cert, key = authority.issue("server")
    url = "https://127.0.0.1:2379"
    options = ("--cert-file", cert, "--key-file", key, "--listen-client-urls", url)
    data = host.folder / "etcd"
    host.popen("etcd", "--data-dir", data, "--advertise-client-urls", url, *options)
    told = ("etcdctl", f"--cacert={authority.cert}", f"--endpoints={url}")
    put = (*told, "put", "/coreos.com/network/config", CONFIG)
    wait_for(lambda: host.run(*put, check=False, env={"ETCDCTL_API": "3"}).ok, "etcd")

    ca = host.folder / "late" / "ca.pem"
    env = {
        "FLANNELD_ETCD_ENDPOINTS": url,
        "FLANNELD_ETCD_CAFILE": str(ca),
        "FLANNELD_IFACE": "eth0",
    }
    host.start_plugin(env)
    missing = f"FLANNELD_ETCD_CAFILE {ca} cannot be read: No such file or directory"
    refused = host.docker("network", "create", *FLANNEL, "app", check=False, limit_s=10)
    assert f"this host has no flannel lease yet: {missing}" in refused.stderr
    place(ca, authority.cert.read_text())
    wait_for(lambda: status(host)["phase"] == "held", "the lease, without a restart")
    network(host, "app")
    web(host, "web", "app", "-p", "8080:80")

    host.stop_plugin()
    ca.unlink()
    host.start_plugin(env)
    for number, (text, words) in enumerate(((None, missing), ("garbage", "no certificate in PEM"))):
        if text is not None:
            place(ca, text)
        wait_for(lambda: words in " ".join(status(host)["problems"]), words)
        assert status(host)["phase"] == "unreachable"
        address = container(host, f"box{number}", "app", "-p", f"808{number + 1}:80")
        assert pings(host, "web", address)
        assert host.reaches("http://127.0.0.1:8080/")
    place(ca, authority.cert.read_text())
    wait_for(lambda: status(host)["phase"] == "held", "the lease, without a restart")
    assert status(host)["problems"] == []


def place(file: Path, text: str) -> None:
    """Put a file where it is looked for."""
    file.parent.mkdir(exist_ok=True)
    file.write_text(text)
