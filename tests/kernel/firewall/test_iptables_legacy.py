"""A change of legacy iptables is noticed, and a host that has none keeps having none."""

from contextlib import closing
from pathlib import Path

import pytest

from driver.host.firewall.iptables_legacy import LegacyFilter

pytestmark = pytest.mark.kernel
LIVE = Path("/proc/thread-self/net/ip_tables_names")


@pytest.fixture
def legacy(host):  # noqa: ARG001  it is made inside
    with closing(LegacyFilter()) as made:
        made.disturbed()
        yield made


def test_to_ask_makes_no_table_live(legacy):
    assert not legacy.disturbed()
    assert LIVE.read_text() == ""


def test_every_change_of_rules_is_noticed_once(legacy, host):
    for words in (
        "-N ONE",
        "-A ONE -j ACCEPT",
        "-A FORWARD -j ONE",
        "-I FORWARD -s 192.0.2.1 -j DROP",
        "-D FORWARD -j ONE",
        "-F FORWARD",
        "-F",
        "-X",
    ):
        host.run("iptables-legacy", "-w", *words.split())
        assert legacy.disturbed(), words
        assert not legacy.disturbed(), words
