"""The survey of a host, on the adapters that it asks."""

from contextlib import ExitStack, closing

import pytest

from driver.host.firewall.nft import NftFirewall
from driver.host.flanneld_probe import FlanneldProbe
from driver.host.links import Links
from driver.host.loopback import LoopbackGuards
from driver.host.sandbox import Sandboxes
from driver.host.servers import Servers
from driver.host.survey import HostSurvey
from driver.model.objects import Sysctl
from tests.kernel.netlink.sample import ADDRESS, BRIDGE, NO_IPV6, V1
from tests.unit.contract import check_survey

pytestmark = pytest.mark.kernel


def test_the_contract(host, namespace):
    with ExitStack() as stack:
        links = stack.enter_context(closing(Links()))
        guards = stack.enter_context(closing(LoopbackGuards()))
        sandboxes = stack.enter_context(closing(Sandboxes()))
        firewall = stack.enter_context(closing(NftFirewall()))
        probe = stack.enter_context(closing(FlanneldProbe()))
        survey = HostSurvey(links, (guards, sandboxes), firewall, probe, Servers([]))
        for adapter in (links, guards, sandboxes, firewall):
            adapter.observe()  # or it does not know what would be a change
        sandbox = namespace()

        def enter():
            host.ip(f"link set {V1.container_end} netns {sandbox.path}")

        forwards = Sysctl(BRIDGE.name, "ipv4", "forwarding", "1")
        check_survey(survey, links, BRIDGE, V1, [ADDRESS, NO_IPV6, forwards], enter)
