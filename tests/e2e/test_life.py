"""What people do with networks every day, with real dockerd and real compose."""

from __future__ import annotations

from pathlib import Path

from tests.bed import Host, wait_for
from tests.e2e.helpers import (
    FLANNEL,
    SERVICES,
    address,
    container,
    gets,
    in_lease,
    inside,
    inspect,
    network,
    pings,
    status,
    web,
)

STACK = (
    SERVICES
    + """\
  db:
    image: box
    container_name: stack_db_1
    command: sleep infinity
    networks: [default, back]
networks:
  default:
    driver: flannel
    ipam: {driver: flannel}
  back:
    driver: flannel
    internal: true
    ipam:
      driver: flannel
      options: {flannel.size: /28}
"""
)


def test_names_addresses_and_status(host: Host) -> None:
    block = network(host, "app")
    one, two = container(host, "one", "app"), container(host, "two", "app")
    assert in_lease(one)
    assert in_lease(two)
    assert one != two
    assert pings(host, "one", "two")
    assert pings(host, "two", "one")
    found = status(host)
    assert [n["block"] for n in found["networks"]] == [str(block)]
    assert {e["address"] for e in found["endpoints"]} == {f"{one}/26", f"{two}/26"}
    assert found["problems"] == []


def test_the_mac_comes_from_the_address_unless_given(host: Host) -> None:
    network(host, "app")
    ip = container(host, "one", "app")
    container(host, "two", "app", "--mac-address", "02:00:00:00:00:99")
    macs = [
        inspect(host, "container", c)["NetworkSettings"]["Networks"]["app"]["MacAddress"]
        for c in ("one", "two")
    ]
    assert macs == [
        f"02:42:{':'.join(f'{int(part):02x}' for part in ip.split('.'))}",
        "02:00:00:00:00:99",
    ]
    for name, mac in zip(("one", "two"), macs, strict=True):
        assert mac in inside(host, name, "ip", "link", "show", "eth0").stdout


def test_stop_start_restart_rm(host: Host) -> None:
    network(host, "app")
    container(host, "peer", "app")
    first = web(host, "one", "app", "-p", "8080:80")
    url = f"http://{host.address}:8080/"
    wait_for(lambda: host.reaches(url), "the port")
    host.docker("stop", "one")
    assert not host.reaches(url)
    host.docker("start", "one")
    wait_for(lambda: host.reaches(url), "the port after start")
    host.docker("restart", "one")
    wait_for(lambda: host.reaches(url), "the port after restart")
    assert pings(host, "peer", "one")
    assert address(host, "one", "app") == first
    host.docker("rm", "-f", "one")
    assert not host.reaches(url)


def test_connect_and_disconnect_a_running_container(host: Host) -> None:
    network(host, "app")
    network(host, "other")
    container(host, "one", "app")
    container(host, "two", "other")
    assert not pings(host, "one", address(host, "two", "other"))
    host.docker("network", "connect", "other", "one")
    assert pings(host, "one", "two")
    host.docker("network", "disconnect", "app", "one")
    assert pings(host, "one", "two")
    assert inside(host, "one", "ip", "route").stdout.count("default") == 1
    host.docker("network", "disconnect", "other", "one")
    assert "eth" not in inside(host, "one", "ip", "link").stdout
    host.docker("network", "connect", "app", "one")
    assert in_lease(address(host, "one", "app"))


def test_flannel_and_bridge_together(host: Host) -> None:
    network(host, "app")
    host.docker("network", "create", "plain")
    container(host, "both", "app")
    container(host, "left", "app")
    container(host, "right", "plain")
    host.docker("network", "connect", "plain", "both")
    assert pings(host, "both", "left")
    assert pings(host, "both", "right")
    host.docker("network", "disconnect", "plain", "both")
    assert pings(host, "both", "left")


def test_internal(host: Host) -> None:
    network(host, "inner", "--internal")
    container(host, "one", "inner", "-p", "8081:80")
    container(host, "two", "inner")
    assert pings(host, "one", "two")
    assert "default" not in inside(host, "one", "ip", "route").stdout
    assert not pings(host, "one", "192.0.2.1")
    assert not host.reaches("http://127.0.0.1:8081/", 2)


def test_outside_through_masquerade_and_without(host: Host) -> None:
    network(host, "app")
    network(host, "plain", "-o", "com.docker.network.bridge.enable_ip_masquerade=false")
    container(host, "one", "app")
    container(host, "two", "plain")
    assert pings(host, "one", "192.0.2.1")
    assert not pings(host, "two", "192.0.2.1"), "its own address is not known outside"


def test_mtu_and_interface_prefix(host: Host) -> None:
    network(
        host,
        "app",
        "-o",
        "com.docker.network.driver.mtu=1400",
        "-o",
        "com.docker.network.container_iface_prefix=net",
    )
    container(host, "one", "app")
    shown = inside(host, "one", "ip", "link", "show", "net0").stdout
    assert "mtu 1400" in shown
    network(host, "usual")
    container(host, "two", "usual")
    assert "mtu 1500" in inside(host, "two", "ip", "link", "show", "eth0").stdout


def test_the_block_a_user_chooses(host: Host) -> None:
    block = network(
        host,
        "app",
        "--subnet",
        "10.2.4.0/24",
        "--ip-range",
        "10.2.4.128/25",
        "--gateway",
        "10.2.4.254",
        "--aux-address",
        "printer=10.2.4.129",
    )
    assert str(block) == "10.2.4.0/24"
    assert container(host, "one", "app") == "10.2.4.128"
    assert container(host, "next", "app") == "10.2.4.130", "past the reserved one"
    assert container(host, "two", "app", "--ip", "10.2.4.77") == "10.2.4.77"
    assert "via 10.2.4.254" in inside(host, "one", "ip", "route").stdout
    assert pings(host, "one", "two")
    sized = network(host, "small", "--ipam-opt", "flannel.size=/28")
    assert sized.prefixlen == 28


def test_a_full_network_says_so_and_recovers(host: Host) -> None:
    network(host, "tiny", "--ipam-opt", "flannel.size=/30")
    container(host, "one", "tiny")
    refused = host.docker("run", "--rm", "--network", "tiny", "box", "true", check=False)
    assert not refused.ok
    assert "no free address in 10.2." in refused.stderr
    host.docker("rm", "-f", "one")
    container(host, "two", "tiny")


def test_docker_ipam_with_a_pool_of_the_lease(host: Host) -> None:
    host.docker("network", "create", "-d", "flannel", "--subnet", "10.2.8.0/24", "app")
    assert container(host, "one", "app").startswith("10.2.8.")
    container(host, "two", "app")
    assert pings(host, "one", "two")
    clash = host.docker("network", "create", *FLANNEL, "--subnet", "10.2.8.0/25", "b", check=False)
    assert "overlaps 10.2.8.0/24 of network" in clash.stderr


def test_compose_twenty_times(host: Host) -> None:
    folder = host.folder / "stack"
    folder.mkdir()
    (folder / "docker-compose.yml").write_text(STACK)
    open_files: list[int] = []
    for _ in range(20):
        host.compose("up", "-d", cwd=folder)
        wait_for(lambda: gets(host, "stack_db_1", "http://web/") == "box", "the stack's web server")
        assert host.fetch("http://127.0.0.1:8080/").strip() == "box"
        assert in_lease(address(host, "stack_db_1", "stack_back"))
        host.compose("down", cwd=folder)
        open_files.append(files_of_the_plugin(host))
    # dockerd keeps some connections open: how many may vary, but not grow with what was done
    assert max(open_files[15:]) <= max(open_files[:5]) + 2


def files_of_the_plugin(host: Host) -> int:
    """Count the open files of the plugin's processes."""
    return sum(len(list(Path(f"/proc/{pid}/fd").iterdir())) for pid in host.plugin_pids())
