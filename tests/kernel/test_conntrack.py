"""Tracked flows are forgotten in the kernel: those that are wrong, and no others."""

import errno
import re
import select
import socket
from contextlib import ExitStack, closing
from ipaddress import IPv4Address

import pytest

from driver.core.flows import Forgetful
from driver.host.conntrack import Conntrack
from driver.host.netlink.channel import Channel
from driver.host.netlink.constants import CTA_FILTER, IPCTNL_MSG_CT_DELETE, NETLINK_NETFILTER
from driver.host.netlink.decoder import attributes
from driver.model.firewall import Flows, PortMap
from driver.model.objects import Plan
from tests.kernel.namespaces import LIMIT_S, QUIET_S
from tests.kernel.sample import HOST, LAN, A, B

pytestmark = pytest.mark.kernel

WAYS = ("in the kernel", "many at once", "an old kernel")


class OldChannel(Channel):
    """A kernel before 6.8: a message that names only parts of a flow is refused."""

    def batch(self, requests, end=b""):
        return {
            i: OSError(errno.EINVAL, "Invalid argument")
            for i, (kind, _, body) in enumerate(requests)
            if kind == IPCTNL_MSG_CT_DELETE and CTA_FILTER in attributes(body, 20)
        } or super().batch(requests, end)


@pytest.fixture(params=WAYS)
def tracker(request, host, monkeypatch):  # noqa: ARG001  it is made inside
    """Each way to forget; "many" adds flows that nobody has."""
    kind = OldChannel if request.param == "an old kernel" else Channel
    with closing(Conntrack(kind(NETLINK_NETFILTER))) as made:
        more = [Flows("udp", n, None) for n in range(20000, 20100)]
        if request.param == "many at once":
            few = made.forget
            monkeypatch.setattr(made, "forget", lambda wrong: few([*wrong, *more]))
        yield made


@pytest.fixture
def site(lab, full):
    """Two containers on A, one on B, and the LAN, with the sample's ports."""
    lab.nft = full
    lab.bridge(A.bridge, str(A.gateway))
    lab.bridge(B.bridge, str(B.gateway))
    lab.web = lab.container(A.bridge, "10.2.0.2/26", str(A.gateway.ip))
    lab.mate = lab.container(A.bridge, "10.2.0.3/26", str(A.gateway.ip))
    lab.other = lab.container(B.bridge, "10.2.0.66/26", str(B.gateway.ip))
    lab.lan = lab.neighbour("eth0", f"{HOST}/24", f"{LAN}/24")
    return lab


def client(node, ip, port, own=5555):
    """A client of UDP that keeps to its own port."""
    with node:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.settimeout(LIMIT_S)
    sock.bind(("", own))
    sock.connect((ip, port))
    return sock


def hears(server, sock):
    """Whether a server hears what a client sends, within a moment."""
    try:
        sock.send(b"x")
    except ConnectionRefusedError:
        sock.send(b"x")  # what the one before came to
    server.settimeout(QUIET_S)
    try:
        return bool(server.recv(10))
    except TimeoutError:
        return False


def port(number, target, proto="udp", host_ip="0.0.0.0"):
    ip, to = target
    return PortMap(proto, IPv4Address(host_ip), number, IPv4Address(ip), to, "9" * 64)


@pytest.mark.parametrize("who", ["lan", "host", "localhost", "other"])
def test_a_client_that_keeps_asking_moves(site, tracker, who):
    node = {"lan": site.lan, "other": site.other}.get(who, site.host)
    ip = "127.0.0.1" if who == "localhost" else HOST
    firewall = Forgetful(site.nft, tracker)
    first, second = port(7000, ("10.2.0.2", 70)), port(7000, ("10.2.0.3", 70))
    with (
        site.web.listen(70, True) as web,
        site.mate.listen(70, True) as mate,
        client(node, ip, 7000) as sock,
    ):
        assert not hears(web, sock)
        firewall.apply(Plan(add=(first,)))
        assert hears(web, sock)
        firewall.apply(Plan(change=((first, second),)))
        assert hears(mate, sock)
        firewall.apply(Plan(remove=(second,)))
        assert not hears(mate, sock)


def test_without_it_a_client_does_not_move(site):
    """What the tests above rest upon."""
    with site.web.listen(70, True) as web, client(site.lan, HOST, 7000) as sock:
        assert not hears(web, sock)
        site.nft.apply(Plan(add=(port(7000, ("10.2.0.2", 70)),)))
        assert not hears(web, sock)


def test_one_host_address_alone_is_concerned(site, tracker):
    site.host.ip("addr add 192.0.2.2/24 dev eth0")
    firewall = Forgetful(site.nft, tracker)
    one = port(7000, ("10.2.0.2", 70), host_ip=HOST)
    two = port(7000, ("10.2.0.2", 70), host_ip="192.0.2.2")
    firewall.apply(Plan(add=(one, two)))
    with (
        site.web.listen(70, True) as web,
        client(site.lan, HOST, 7000) as sock,
        client(site.lan, "192.0.2.2", 7000, 5556) as beside,
    ):
        assert hears(web, sock)
        assert hears(web, beside)
        firewall.apply(Plan(remove=(two,)))
        left = site.host.run("conntrack", "-L")
        assert f"dst={HOST} " in left
        assert "dst=192.0.2.2 " not in left
        assert hears(web, sock)


def connected(stack, node, server, ip, number):
    """Connect through the host; give both ends."""
    with node:
        sock = stack.enter_context(socket.create_connection((ip, number), LIMIT_S))
    accepted, _ = server.accept()
    stack.enter_context(accepted).settimeout(LIMIT_S)
    return sock, accepted


def talks(ends):
    ends[0].send(b"x")
    return ends[1].recv(10) == b"x"


def test_connections_of_a_port_end_with_it_and_others_stay(site, tracker):
    firewall = Forgetful(site.nft, tracker)
    mine = port(7000, ("10.2.0.2", 80), "tcp")
    firewall.apply(Plan(add=(mine,)))
    with ExitStack() as stack:
        web = stack.enter_context(site.web.listen(80))
        away = stack.enter_context(site.lan.listen(7000))  # the same number, elsewhere
        gone = connected(stack, site.lan, web, HOST, 7000)
        kept = connected(stack, site.lan, web, HOST, 8080)
        out = connected(stack, site.web, away, LAN, 7000)
        assert all(map(talks, (gone, kept, out)))
        firewall.apply(Plan(remove=(mine,)))
        to_port = rf" src={LAN} dst={HOST} sport=\d+ dport=7000 "
        assert not re.search(to_port, site.host.run("conntrack", "-L"))
        assert talks(kept)
        assert talks(out)
        firewall.apply(Plan(add=(mine,)))
        assert talks(kept)
        assert talks(out)


def test_a_connection_outlives_its_port_being_written_again(site, tracker):
    mine = port(7000, ("10.2.0.2", 80), "tcp")
    firewall = Forgetful(site.nft, tracker)
    firewall.apply(Plan(add=(mine,)))
    with ExitStack() as stack:
        web = stack.enter_context(site.web.listen(80))
        ends = connected(stack, site.lan, web, HOST, 7000)
        site.nft.apply(Plan(remove=(mine,)))  # as somebody else does
        firewall.apply(Plan(add=(mine,)))
        assert talks(ends)


def test_a_connection_being_asked_for_gets_through(site, tracker):
    site.host.run("nft", "add table inet silent")
    site.host.run("nft", "add chain inet silent in { type filter hook input priority 0; }")
    site.host.run("nft", "add rule inet silent in tcp dport 7000 drop")  # as the held socket does
    with site.web.listen(80) as web:
        with site.lan:
            sock = socket.socket()
        with sock:
            sock.setblocking(False)
            assert sock.connect_ex((HOST, 7000)) == errno.EINPROGRESS
            assert not select.select([], [sock], [], QUIET_S)[1]
            Forgetful(site.nft, tracker).apply(Plan(add=(port(7000, ("10.2.0.2", 80), "tcp"),)))
            assert select.select([], [sock], [], LIMIT_S)[1], "the client asks again after a second"
            web.accept()[0].close()


def test_an_old_kernel_is_told_of_once(host, caplog):  # noqa: ARG001
    caplog.set_level("INFO")
    with closing(Conntrack(OldChannel(NETLINK_NETFILTER))) as made:
        made.forget([Flows("udp", 7000, None)])
        made.forget([Flows("udp", 7001, None)])
    assert len([r for r in caplog.records if "by filter" in r.message]) == 1


def test_what_the_kernel_refuses_is_told_and_nothing_else(host, caplog):  # noqa: ARG001
    class Refusing(Channel):
        def batch(self, requests, end=b""):  # noqa: ARG002
            raise OSError(errno.EPERM, "Operation not permitted")

    with closing(Conntrack(Refusing(NETLINK_NETFILTER))) as made:
        made.forget([Flows("udp", 7000, None)])
        made.forget([Flows("udp", 7001, None)])
    assert caplog.text.count("Operation not permitted; old flows go on") == 1
