"""What flanneld puts into the firewall."""

from __future__ import annotations

from driver.setup.migration.flannel_rules import removals, tables

SAVED = """\
*filter
:FORWARD DROP [0:0]
:FLANNEL-FWD - [0:0]
:MY-FLANNEL - [0:0]
-A FORWARD -j DOCKER-USER
-A FORWARD -m comment --comment "flanneld forward" -j FLANNEL-FWD
-A FORWARD -s 10.2.0.0/16 -j ACCEPT
-A FORWARD -m comment --comment "not flanneld forward" -j ACCEPT
-A MY-FLANNEL -j ACCEPT
-A FLANNEL-FWD -s 10.2.0.0/16 -m comment --comment "flanneld forward" -j ACCEPT
COMMIT
*nat
:FLANNEL-POSTRTG - [0:0]
-A POSTROUTING -s 172.17.0.0/16 ! -o docker0 -j MASQUERADE
-A POSTROUTING -m comment --comment "flanneld masq" -j FLANNEL-POSTRTG
-A FLANNEL-POSTRTG -s 10.2.0.0/16 -m comment --comment "flanneld masq" -j MASQUERADE
COMMIT
"""
EARLIER = """\
*nat
-A POSTROUTING -s 10.2.0.0/16 -d 10.2.0.0/16 -m comment --comment "flanneld masq" -j RETURN
COMMIT
"""


def test_jumps_go_first_and_no_other_rule_is_named() -> None:
    forward = ("-m", "comment", "--comment", "flanneld forward", "-j", "FLANNEL-FWD")
    masq = ("-m", "comment", "--comment", "flanneld masq", "-j", "FLANNEL-POSTRTG")
    assert list(removals(SAVED)) == [
        ("-t", "filter", "-D", "FORWARD", *forward),
        ("-t", "nat", "-D", "POSTROUTING", *masq),
        ("-t", "filter", "-F", "FLANNEL-FWD"),
        ("-t", "filter", "-X", "FLANNEL-FWD"),
        ("-t", "nat", "-F", "FLANNEL-POSTRTG"),
        ("-t", "nat", "-X", "FLANNEL-POSTRTG"),
    ]


def test_rules_of_versions_without_chains_are_known_by_their_comment() -> None:
    [words] = removals(EARLIER)
    assert words[:4] == ("-t", "nat", "-D", "POSTROUTING")
    assert words[-1] == "RETURN"


def test_nothing_of_flanneld_nothing_to_remove() -> None:
    other = [line for line in SAVED.splitlines() if "FLANNEL-" not in line]
    assert not list(removals("\n".join(other)))


def test_tables() -> None:
    listed = (
        '{"nftables": [{"metainfo": {"version": "1.0.6"}},'
        ' {"table": {"family": "ip", "name": "flannel-ipv4", "handle": 1}},'
        ' {"table": {"family": "inet", "name": "docker_flannel", "handle": 2}}]}'
    )
    assert tables(listed) == [("ip", "flannel-ipv4")]
