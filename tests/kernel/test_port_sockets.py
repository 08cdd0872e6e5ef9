"""Port sockets beside real sockets of other programs."""

import errno
import os
import resource
import socket
import subprocess
import threading
from contextlib import closing
from ipaddress import IPv4Address

import pytest

from driver.errors import BadRequest, Conflict, HostError
from driver.host.port_sockets import BPF, PortSockets, _shared_filter
from driver.model.objects import Plan, PortSocket, diff
from driver.model.records import replace
from tests.unit.contract import check_adapter, check_failure

pytestmark = pytest.mark.kernel

ANY = IPv4Address("0.0.0.0")
LOOP = IPv4Address("127.0.0.1")
TCP = PortSocket("tcp", ANY, 8080, "e1")
UDP = PortSocket("udp", ANY, 8080, "e1")
SCTP = PortSocket("sctp", ANY, 8080, "e1")
KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}


@pytest.fixture
def sockets(host):  # noqa: ARG001  it works inside
    with closing(PortSockets()) as made:
        yield made


def take(proto, ip, reuse, port=8080):
    """Bind as an ordinary program does."""
    sock = socket.socket(socket.AF_INET, KINDS[proto])
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, reuse)
    try:
        sock.bind((ip, port))
        if proto == "tcp":
            sock.listen()
    except OSError:
        sock.close()
        raise
    return sock


def refused(sockets, *holds):
    with pytest.raises(ExceptionGroup) as caught:
        sockets.apply(Plan(add=holds))
    return {type(e): str(e) for e in caught.value.exceptions}


def test_the_contract(sockets):
    other = PortSocket("tcp", LOOP, 81, "e2")
    check_adapter(sockets, [TCP, UDP, SCTP, other], (TCP, replace(TCP, owner="e2")))
    with take("tcp", "0.0.0.0", False):
        words = "Bind for 0.0.0.0:8080 failed: port is already allocated"
        check_failure(sockets, [UDP, other], TCP, words)


def test_holds_come_and_go(sockets):
    wanted = {TCP, UDP, SCTP, PortSocket("tcp", LOOP, 81, "e2")}
    sockets.apply(diff(sockets.observe(), wanted))
    assert sockets.observe() == wanted
    sockets.apply(diff((), wanted))
    assert sockets.observe() == wanted
    sockets.apply(Plan(remove=(TCP, UDP)))
    assert sockets.observe() == wanted - {TCP, UDP}
    sockets.apply(Plan(remove=(TCP, UDP)))
    for proto in KINDS:
        take(proto, "0.0.0.0", False).close()
    sockets.close()
    assert sockets.observe() == frozenset()
    take("tcp", "127.0.0.1", False, 81).close()


@pytest.mark.parametrize("proto", KINDS)
@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("ip", ["0.0.0.0", "127.0.0.1"])
def test_no_other_program_gets_a_held_port(sockets, proto, reuse, ip):
    sockets.apply(Plan(add=(TCP, UDP)))
    with pytest.raises(OSError, match="in use") as caught:
        take(proto, ip, reuse)
    assert caught.value.errno == errno.EADDRINUSE


@pytest.mark.parametrize("proto", KINDS)
@pytest.mark.parametrize("reuse", [True, False])
@pytest.mark.parametrize("ip", ["0.0.0.0", "127.0.0.1"])
def test_a_port_of_another_program_is_a_conflict_in_dockers_words(sockets, proto, reuse, ip):
    hold = TCP if proto == "tcp" else UDP
    with take(proto, ip, reuse):
        assert refused(sockets, hold) == {
            Conflict: "Bind for 0.0.0.0:8080 failed: port is already allocated"
        }
        assert sockets.observe() == frozenset()
    sockets.apply(Plan(add=(hold,)))
    assert sockets.observe() == {hold}


def test_one_conflict_does_not_keep_the_rest(sockets):
    with take("tcp", "0.0.0.0", False):
        assert set(refused(sockets, UDP, TCP, PortSocket("tcp", ANY, 81, "e1"))) == {Conflict}
    assert sockets.observe() == {UDP, PortSocket("tcp", ANY, 81, "e1")}


def test_two_containers_cannot_hold_one_port(sockets):
    sockets.apply(Plan(add=(TCP, SCTP)))
    assert set(refused(sockets, PortSocket("tcp", ANY, 8080, "e2"))) == {Conflict}
    assert set(refused(sockets, PortSocket("tcp", LOOP, 8080, "e2"))) == {Conflict}
    assert set(refused(sockets, PortSocket("sctp", ANY, 8080, "e2"))) == {Conflict}
    assert sockets.observe() == {TCP, SCTP}


def test_one_port_on_two_addresses(sockets):
    holds = {PortSocket("tcp", IPv4Address(f"127.0.0.{i}"), 8080, f"e{i}") for i in (1, 2)}
    sockets.apply(diff((), holds))
    assert sockets.observe() == holds


def test_a_new_owner_keeps_the_socket(sockets):
    sockets.apply(Plan(add=(TCP,)))
    heir = PortSocket("tcp", ANY, 8080, "e2")
    with take("tcp", "127.0.0.1", True, 0):
        sockets.apply(Plan(change=((TCP, heir),)))
    assert sockets.observe() == {heir}
    sockets.apply(Plan(change=((UDP, PortSocket("udp", ANY, 8080, "e2")),)))
    assert len(sockets.observe()) == 2


def test_an_address_the_host_does_not_have(sockets):
    assert refused(sockets, PortSocket("tcp", IPv4Address("203.0.113.9"), 80, "e1")) == {
        BadRequest: "host address 203.0.113.9 is not an address of this host; "
        "`ip -4 address` lists them"
    }


def test_other_failures_are_told(sockets):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, limits[1]))
    try:
        errors = refused(sockets, TCP)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert errors == {HostError: "host port 0.0.0.0:8080/tcp cannot be held: Too many open files"}


def test_more_ports_than_programs_open_files_before_they_ask(host):  # noqa: ARG001
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, limits[1]))
    try:
        with closing(PortSockets()) as sockets:
            holds = {PortSocket("tcp", ANY, port, "e1") for port in range(8000, 8200)}
            sockets.apply(diff((), holds))
            assert sockets.observe() == holds
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.parametrize("refusing", ["resource.setrlimit", "fcntl.fcntl"])
def test_a_system_that_gives_no_more_room(host, monkeypatch, refusing):  # noqa: ARG001
    """As where fs.nr_open has become lower than the limits that programs were started with."""

    def refuse(*_):
        raise OSError(errno.EMFILE, "") if refusing == "fcntl.fcntl" else ValueError

    monkeypatch.setattr(refusing, refuse)
    with closing(PortSockets()) as sockets:
        sockets.apply(Plan(add=(TCP,)))
        assert sockets.observe() == {TCP}


def test_ports_leave_files_for_all_else(sockets):
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, limits[1]))
    try:
        errors = refused(
            sockets, *(PortSocket("udp", ANY, port, "e1") for port in range(8000, 8256))
        )
        for file in [os.dup(0) for _ in range(32)]:
            os.close(file)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    assert errors == {HostError: "host port 0.0.0.0:8255/udp cannot be held: Too many open files"}
    assert len(sockets.observe()) > 100


@pytest.mark.parametrize("call", [BPF, None])
def test_a_held_port_is_silent(sockets, host, call, monkeypatch):
    monkeypatch.setattr("driver.host.port_sockets.BPF", call)
    _shared_filter.cache_clear()
    sockets.apply(Plan(add=(TCP, UDP)))
    with take("tcp", "127.0.0.1", True, 0) as unused:
        assert host.cannot_reach(unused, "127.0.0.1", 8080)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect(("127.0.0.1", 8080))
        client.send(b"x")
        client.send(b"x")  # would report the refusal of the first, if there were one


def test_connections_in_time_wait_are_no_obstacle(sockets):
    server = take("tcp", "127.0.0.1", True)
    with server, socket.create_connection(("127.0.0.1", 8080)) as client:
        server.accept()[0].close()  # closes first: TIME_WAIT stays on the server's port
        assert client.recv(1) == b""
    sockets.apply(Plan(add=(TCP,)))
    assert sockets.observe() == {TCP}


def test_sockets_do_not_leak_into_other_programs(sockets):
    sockets.apply(Plan(add=(TCP, UDP)))
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE, close_fds=False):
        sockets.apply(Plan(remove=(TCP, UDP)))
        for proto in KINDS:
            take(proto, "0.0.0.0", False).close()


def test_programs_being_started_meanwhile_are_no_obstacle(sockets):
    stop = threading.Event()

    def start_programs():
        while not stop.is_set():
            subprocess.run(["true"], check=True)

    threads = [threading.Thread(target=start_programs) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(2000):
            sockets.apply(Plan(add=(TCP, UDP)))
            sockets.apply(Plan(remove=(TCP, UDP)))
    finally:
        stop.set()
        for thread in threads:
            thread.join()


def test_any_thread_may_call(sockets):
    for plan in (Plan(add=(TCP,)), Plan(add=(UDP,)), Plan(remove=(TCP,))):
        thread = threading.Thread(target=sockets.apply, args=(plan,))
        thread.start()
        thread.join()
    assert sockets.observe() == {UDP}
