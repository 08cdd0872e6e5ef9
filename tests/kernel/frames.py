"""Packets as an attacker writes them, and receivers that tell all that has arrived."""

import json
import socket
import struct
from ipaddress import IPv4Address, IPv6Address

END = b"end"
IPV6, NO_NEXT_HEADER = 0x86DD, 59


def checksum(data):
    """The Internet checksum of an even number of bytes."""
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return struct.pack("!H", ~total & 0xFFFF)


def packet(source, destination, proto, body):
    """An IPv4 packet with whatever source."""
    head = struct.pack("!BBHHHBB", 0x45, 0, 20 + len(body), 1, 0, 64, proto)
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    return head + checksum(head + bytes(2) + ends) + ends + body


def udp(source, destination, port, data, source_port=5000):
    body = struct.pack("!HHHH", source_port, port, 8 + len(data), 0) + data
    return packet(source, destination, socket.IPPROTO_UDP, body)


def packet6(source, destination, body):
    """An IPv6 packet with nothing in it that a router would look at."""
    ends = IPv6Address(source).packed + IPv6Address(destination).packed
    return struct.pack("!IHBB", 6 << 28, len(body), NO_NEXT_HEADER, 64) + ends + body


def frame(mac, kind, body):
    """An Ethernet frame from nobody in particular."""
    return (
        bytes.fromhex(mac.replace(":", "")) + b"\x02\0\0\0\0\x66" + struct.pack("!H", kind) + body
    )


def overlay_frame(mac, inner, vni=1):
    """What a VXLAN port takes for a packet of the overlay."""
    return struct.pack("!II", 0x08000000, vni << 8) + frame(mac, 0x0800, inner)


def mac_of(namespace, link):
    [found] = json.loads(namespace.run("ip", "-j", "link", "show", "dev", link))
    return found["address"]


def send(namespace, ip, port, data):
    """Send a datagram as every program may."""
    with namespace, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(data, (ip, port))


def send_raw(namespace, link, mac, body, kind=0x0800):
    """Send a frame by a link, as NET_RAW allows."""
    with namespace, socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as sender:
        sender.bind((link, 0))
        sender.send(frame(mac, kind, body))


class Ear:
    """Hears all packets of a kind that arrive by a link, whatever becomes of them."""

    def __init__(self, namespace, link="eth0", kind=0x0800):
        with namespace:
            # without the link's header
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(kind))
        self._socket.bind((link, kind))
        self._socket.settimeout(10)

    def until(self, end=END):
        """Return the packets before the one that ends with these bytes."""
        found: list[bytes] = []
        while True:
            data, (_, _, direction, *_) = self._socket.recvfrom(65536)
            if direction == socket.PACKET_OUTGOING:
                continue
            if data.endswith(end):
                return found
            found.append(data)

    def heard(self, mark):
        """Whether a packet with a mark has arrived before the end."""
        return any(mark in data for data in self.until())

    def close(self):
        self._socket.close()
