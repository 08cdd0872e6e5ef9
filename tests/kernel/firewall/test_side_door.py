"""Frames to a group that bridges do not pass on come in by a container's veth, past the bridge.

No rule that names the bridge sees them.
"""

import pytest

from driver.model.records import HOST_END_PREFIX
from tests.kernel.firewall.attack import DOCKER, PORT, arrived, forged
from tests.kernel.firewalls import flush
from tests.kernel.frames import send_raw, udp

pytestmark = pytest.mark.kernel

VETH = f"{HOST_END_PREFIX}111111111111"
GROUPS = [f"01:80:c2:00:00:{last}" for last in ("00", "02", "03", "0d", "0e")]


@pytest.mark.parametrize(("attacker", "link"), [("web", VETH), ("docker", "vethdocker")])
def test_nothing_comes_in_by_a_veth(stage, attacker, link):
    """Of our bridges and of others'."""
    old, gateway = {"web": ("veth0", "10.2.0.1"), "docker": ("veth4", DOCKER)}[attacker]
    stage.host.ip(f"link set {old} down", f"link set {old} name {link}", f"link set {link} up")

    def attack(group):
        """Forge a frame of the overlay to a group that the host listens to."""
        packet = udp("10.2.0.2", gateway, PORT, forged(stage, "10.2.0.66"))
        send_raw(getattr(stage, attacker), "eth0", group, packet)
        return "other" in arrived(stage)

    assert [group for group in GROUPS if attack(group)] == []
    flush(stage.host)
    assert [group for group in GROUPS if attack(group)] == GROUPS
