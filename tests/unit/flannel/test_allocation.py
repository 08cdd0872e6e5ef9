"""Which subnets are free, and which ones a config allows."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from driver.flannel.allocation import compatible, free_subnets, preferred, taken_subnets
from driver.flannel.etcd.registry import Entry
from driver.flannel.records import ParseCache, read_leases
from driver.model.records import Overlay
from tests.unit.flannel_sample import FOLDER, IP, OVERLAY, N


def naive(overlay: Overlay, taken: list[N]) -> list[N]:
    every = overlay.network.subnets(new_prefix=overlay.subnet_len)
    return [n for n in every if compatible(overlay, n) and not any(n.overlaps(t) for t in taken)]


def test_free_subnets_are_those_that_nothing_overlaps() -> None:
    source = random.Random(11)  # noqa: S311
    small = Overlay(N("10.5.0.0/22"), 27, IP("10.5.0.32"), IP("10.5.3.192"), "vxlan")
    for _ in range(300):
        taken = [
            N(
                (int(IP("10.4.252.0")) + source.randrange(2048), source.randint(22, 31)),
                strict=False,
            )
            for _ in range(source.randrange(12))
        ]
        assert list(free_subnets(small, taken)) == naive(small, taken)


def test_no_free_subnets() -> None:
    assert list(free_subnets(replace(OVERLAY, subnet_min=IP("10.5.9.0"),
                                     subnet_max=IP("10.5.8.0")), [])) == []  # fmt: skip
    assert list(free_subnets(OVERLAY, [N("10.0.0.0/8")])) == []


def test_the_largest_network_does_not_take_long() -> None:
    huge = Overlay(N("10.0.0.0/8"), 30, IP("10.0.0.4"), IP("10.255.255.252"), "vxlan")
    taken = [N("10.0.0.0/9"), *N("10.128.0.0/16").subnets(new_prefix=30)]
    assert next(free_subnets(huge, taken)) == N("10.129.0.0/30")


def test_a_key_alone_takes_a_subnet_unless_it_would_take_all() -> None:
    keys = ("10.5.30.0-24", "10.5.31.0-24&fd00::-64", "10.9.0.0-24", "hello", "10.0.0.0-8",
            "0.0.0.0-0&fd00::-64", "10.5.0.0-16", "10.5.64.0-18")  # fmt: skip
    entries = [Entry(FOLDER + key, b"garbage", 1) for key in keys]
    expected = [N("10.5.30.0/24"), N("10.5.31.0/24"), N("10.9.0.0/24"), N("10.5.64.0/18")]
    cache: ParseCache = {}
    for _ in range(2):
        assert taken_subnets(entries, OVERLAY, cache) == expected
        read_leases(entries, cache)


@pytest.mark.parametrize(
    ("subnet", "fits"),
    [
        ("10.5.1.0/24", True), ("10.5.255.0/24", True), ("10.5.0.0/24", False),
        ("10.6.1.0/24", False), ("10.5.1.0/25", False),
    ],
)  # fmt: skip
def test_compatible(subnet: str, fits: bool) -> None:
    assert compatible(OVERLAY, N(subnet)) is fits


def test_each_host_has_a_favourite_of_its_own_and_keeps_it() -> None:
    free = list(N("10.2.0.0/16").subnets(new_prefix=21))
    hosts = [IP(f"192.0.2.{n}") for n in range(1, 9)]
    chosen = {host: preferred(host, free) for host in hosts}
    assert len(set(chosen.values())) > 5, "few hosts want the same subnet"
    for host, subnet in chosen.items():
        others = [n for n in chosen.values() if n != subnet]
        assert preferred(host, [n for n in free if n not in others]) == subnet
        assert preferred(host, list(reversed(free))) == subnet
        assert preferred(host, [n for n in free if n != subnet]) != subnet
