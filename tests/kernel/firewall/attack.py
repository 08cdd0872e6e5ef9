"""Packets that nobody should send, and at whom they arrive."""

from tests.kernel.frames import END, mac_of, overlay_frame, send, udp

PEER = "10.2.9.2"  # a container of another host
DOCKER = "198.51.100.1"  # of another program's bridge, docker0
PORT = 8472
SECRET = b"forged"


def overlay(namespace, address, ip):
    namespace.ip(
        f"link add flannel.1 up type vxlan id 1 dev eth0 local {ip} dstport {PORT} nolearning",
        f"addr add {address}/32 dev flannel.1",
    )


def meet(namespace, other, address, ip, source=""):
    """Let a host know another one's VTEP."""
    mac = mac_of(other, "flannel.1")
    namespace.ip(
        f"neigh add {address} lladdr {mac} dev flannel.1 nud permanent",
        f"route add {address}/24 via {address} dev flannel.1 onlink {source}",
    )
    namespace.run("bridge", "fdb", "append", mac, "dev", "flannel.1", "dst", ip)


def arrived(lab):
    """Return the names of those whom the secret has reached since the last time."""
    for ip in lab.ears.values():  # nothing sent before is still under way when these have come
        send(lab.host, ip, 9, END)
    return {name for name, ear in lab.heard.items() if ear.heard(SECRET)}


def forged(lab, target):
    """A frame of the overlay, from a container of another host that never sent it."""
    mac = mac_of(lab.host, "flannel.1")
    return overlay_frame(mac, udp(PEER, target, 7, SECRET))
