"""Rules that an earlier run of the plugin left are known again, if nobody has changed them."""

from contextlib import closing

import pytest

from driver.model.firewall import InternalBridge, Ruleset
from driver.model.objects import Plan, diff
from tests.kernel.firewalls import flush, listing
from tests.kernel.sample import ONE, TABLE, WANTED

pytestmark = pytest.mark.kernel
ONLY_NFT = pytest.mark.parametrize("make_firewall", ["nft"], indirect=True)


@pytest.fixture
def again(loaded, make_firewall):
    """The backend of the next run, on what the last one left."""
    loaded.close()
    loaded.close = lambda: None
    with closing(make_firewall()) as made:
        yield made


def test_what_nobody_changed_is_all_there(again, host):
    before = listing(host)
    again.resume(WANTED)
    assert again.observe() == WANTED
    assert not again.disturbed()
    again.apply(Plan(remove=(ONE,)))
    again.apply(Plan(add=(ONE,)))
    assert again.observe() == WANTED
    assert sorted(_rules(listing(host))) == sorted(_rules(before)), "none was written again"


def _rules(text):
    return [line for line in text.splitlines() if "8080" not in line]


def test_without_a_look_it_is_not_trusted(again):
    assert TABLE not in again.observe()


@ONLY_NFT  # the other backends' chains do not come from one text
def test_the_table_of_another_version_is_replaced(again, host):
    host.run("nft", "add chain inet docker_flannel more")
    again.resume(WANTED)
    assert diff(again.observe(), WANTED).change == ((Ruleset(intact=False), TABLE),)


def test_what_is_gone_is_made(again, host):
    flush(host)
    again.resume(WANTED)
    assert TABLE not in again.observe()
    again.apply(diff(again.observe(), WANTED))
    assert again.observe() == WANTED


def test_what_somebody_added_to_a_chain_is_no_longer_ours(again, host):
    if again.name == "nft":
        host.run("nft", "insert rule inet docker_flannel forward accept")
    else:
        host.run(again.name, "-t", "mangle", "-I", "DKFLANNEL-FORWARD", "-j", "ACCEPT")
    again.resume(WANTED)
    assert TABLE not in again.observe()
    again.apply(diff(again.observe(), WANTED))
    assert again.observe() == WANTED


@ONLY_NFT  # the other backends replace their chains as a whole
def test_elements_that_differ_are_changed_one_by_one(again, host):
    host.run("nft", "delete element inet docker_flannel pub4_any { tcp . 8080 }")
    host.run("nft", 'add element inet docker_flannel internal { "fl-more" }')
    again.resume(WANTED)
    plan = diff(again.observe(), WANTED)
    assert plan == Plan(add=(ONE,), remove=(InternalBridge("fl-more"),))
    again.apply(plan)
    assert again.observe() == WANTED
