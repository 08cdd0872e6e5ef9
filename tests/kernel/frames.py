"""Packets as an attacker writes them, and receivers that tell all that has arrived."""

import json
import socket
import struct
from ipaddress import IPv4Address

END = b"end"


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


def syn(source, destination, port, source_port=5000):
    ends = IPv4Address(source).packed + IPv4Address(destination).packed
    body = struct.pack("!HHIIBBHHH", source_port, port, 1, 0, 0x50, 2, 1000, 0, 0)
    body = body[:16] + checksum(ends + struct.pack("!HH", 6, len(body)) + body) + body[18:]
    return packet(source, destination, socket.IPPROTO_TCP, body)


def echo(source, destination, data):
    body = struct.pack("!BBHHH", 8, 0, 0, 1, 1) + data + bytes(len(data) % 2)
    body = body[:2] + checksum(body) + body[4:]
    return packet(source, destination, socket.IPPROTO_ICMP, body)


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
    """Hears all IPv4 packets that arrive at a namespace by a link, whatever is done with them."""

    def __init__(self, namespace, link="eth0"):
        with namespace:
            kind = socket.SOCK_DGRAM  # without the link's header
            self._socket = socket.socket(socket.AF_PACKET, kind, socket.htons(0x0800))
        self._socket.bind((link, 0x0800))
        self._socket.settimeout(10)

    def until(self, end=END):
        """Give the packets before the one that ends with these bytes."""
        found = []
        while True:
            data, (_, _, direction, *_) = self._socket.recvfrom(65536)
            if direction == socket.PACKET_OUTGOING:
                continue
            if data.endswith(end):
                return found
            found.append(data)

    def heard(self, mark):
        """Tell whether a packet with a mark has arrived before the end."""
        return any(mark in data for data in self.until())

    def close(self):
        self._socket.close()
