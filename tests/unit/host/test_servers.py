"""Where etcd and the name servers are."""

from __future__ import annotations

import os
import threading
from ipaddress import IPv4Address
from pathlib import Path

from driver.host.servers import Servers

IP = IPv4Address


def test_addresses_are_known_at_once_and_names_when_they_are_looked_up() -> None:
    servers = Servers(["192.0.2.1", "fd00::1", "localhost"], [])
    assert servers.names == {"localhost"}
    assert servers.etcd() == {IP("192.0.2.1")}
    stop = threading.Event()
    thread = threading.Thread(target=servers.run, args=(stop, 0.01))
    thread.start()
    for _ in range(1000):
        if IP("127.0.0.1") in servers.etcd():
            break
        stop.wait(0.01)
    stop.set()
    thread.join()
    assert servers.etcd() == {IP("192.0.2.1"), IP("127.0.0.1")}


def test_a_name_that_nobody_knows_is_no_address() -> None:
    servers = Servers(["no-such-host.invalid"], [])
    stop = threading.Event()
    thread = threading.Thread(target=servers.run, args=(stop, 0.01))
    thread.start()
    stop.wait(0.1)
    stop.set()
    thread.join()
    assert servers.etcd() == frozenset()


def test_name_servers_are_read_from_regular_files_only(tmp_path: Path) -> None:
    one, fifo = tmp_path / "resolv.conf", tmp_path / "fifo"
    os.mkfifo(fifo)
    one.write_text(
        "nameserver 10.0.0.53\nnameserver 127.0.0.53\nnameserver\nnameserver fd00::1\n"
        "# nameserver 10.0.0.1\nsearch x\n nameserver 10.0.0.2 \nnameserver 10.0.0.53"
    )
    assert Servers([], [one, fifo, tmp_path / "none"]).resolvers() == (
        IP("10.0.0.2"),
        IP("10.0.0.53"),
    )
