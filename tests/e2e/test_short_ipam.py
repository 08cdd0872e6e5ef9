"""`-d flannel` with nothing else where Docker's own addresses are refused or left out."""

from __future__ import annotations

from tests.bed import Host, wait_for
from tests.e2e.helpers import address, container, gets, in_lease, inside, network, web
from tests.e2e.short_form import create, lease_ip, ps, settled


def test_it_can_be_refused(host: Host) -> None:
    host.stop_plugin()
    host.start_plugin({"DOCKER_FLANNEL_REQUIRE_IPAM": "1"})
    refused = host.docker("network", "create", "-d", "flannel", "app", check=False)
    assert "add `--ipam-driver flannel`" in refused.stderr
    assert "`ipam: {driver: flannel}`" in refused.stderr
    network(host, "app")
    host.stop_plugin()
    host.start_plugin()


def test_ipv4_left_to_the_driver(host: Host, since_28: bool) -> None:
    """Docker 28 and later do; an older one has no such flag, and ignores the option."""
    option = "com.docker.network.enable_ipv4=false"
    if since_28:
        host.docker("network", "create", "-d", "flannel", "--ipv4=false", "app")
        one_address(host)
        host.docker("network", "rm", "app")
        host.docker("network", "create", "-d", "flannel", "-o", option, "app")
        one_address(host)
        return
    unknown = host.docker("network", "create", "-d", "flannel", "--ipv4=false", "app", check=False)
    assert "unknown flag: --ipv4" in unknown.stderr
    create(host, "app", "-o", option)
    container(host, "one", "app")
    settled(host, "one")


def test_no_ipam_at_all(host: Host) -> None:
    size = ("-o", "flannel.size=/28")
    host.docker("network", "create", "-d", "flannel", "--ipam-driver", "null", *size, "app")
    one_address(host)


def one_address(host: Host) -> None:
    """Two containers of `app` come and go, each with a lease address that Docker shows."""
    ips = {name: web(host, name, "app", "-p", f"{port}:80") for name, port in WEBS.items()}
    assert all(in_lease(ip) for ip in ips.values())
    assert len({*ips.values()}) == 2
    assert {name: lease_ip(host, name) for name in ips} == ips
    for name, port in WEBS.items():
        assert gets(host, "one", f"http://{name}/") == name
        url = f"http://{host.address}:{port}/"
        wait_for(lambda: host.reaches(url), "the port")
        assert f" {ips[name]}/" in inside(host, name, "ip", "-o", "-4", "addr").stdout
    host.docker("restart", "one")
    assert in_lease(address(host, "one", "app"))
    host.docker("rm", "-f", *ips)
    assert ps(host) == []


WEBS = {"one": 8080, "two": 8081}
