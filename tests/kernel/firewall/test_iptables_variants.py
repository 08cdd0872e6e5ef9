"""Which iptables a host has, and whether its kernel has nf_tables."""

import struct
from contextlib import closing
from pathlib import Path

import pytest

from driver import wiring
from driver.host.firewall import iptables_variants, nft_generation
from driver.host.firewall.nft_generation import NONE, Generation, has_nf_tables

pytestmark = pytest.mark.kernel


def test_the_number_grows_with_every_change(host):
    with closing(Generation()) as ruleset:
        first = ruleset.number()
        assert first == ruleset.number() != NONE
        host.run("nft", "add", "table", "inet", "foreign")
        second = ruleset.number()
        assert second > first
        host.run("iptables-nft", "-N", "FOREIGN")
        assert ruleset.number() > second


@pytest.fixture
def no_nf_tables(monkeypatch):
    """A kernel of which the question is put to a part that no kernel has."""
    absent = struct.pack("=IHHIIBBH", 20, 0x7F << 8, 1, 0, 0, 0, 0, 0)
    monkeypatch.setattr(nft_generation, "_REQUEST", absent)


def test_the_kernel_s_refusal_is_understood(no_nf_tables):  # noqa: ARG001
    with closing(Generation()) as ruleset:
        assert ruleset.number() == NONE
    assert not has_nf_tables()


@pytest.mark.usefixtures("no_nf_tables")
def test_without_nf_tables_all_is_legacy(host):
    assert iptables_variants.variants() == frozenset(), "programs alone are no variant"
    assert iptables_variants.chosen() == "legacy"
    assert wiring._chosen("auto") == wiring._chosen("iptables") == "iptables-legacy"
    host.run("iptables-legacy", "-L")
    assert iptables_variants.variants() == {"legacy"}


@pytest.fixture
def programs(tmp_path, monkeypatch):
    """A search path with nothing but what a test puts there."""
    monkeypatch.setenv("PATH", str(tmp_path))

    def put(name, says=""):
        file = Path(tmp_path, name)
        file.write_text(f"#!/bin/sh\necho '{says}'\n")
        file.chmod(0o700)

    return put


def test_the_host_s_own_iptables_is_chosen(programs):
    assert has_nf_tables()
    assert wiring._chosen("auto") == wiring._chosen("nft") == "nft"
    assert iptables_variants.chosen() == "legacy", "there are no programs"
    programs("iptables-nft-restore")
    assert iptables_variants.chosen() == "nft"
    for says, variant in (
        ("iptables v1.8.9 (nf_tables)", "nft"),
        ("iptables v1.8.9 (legacy)", "legacy"),
        ("iptables v1.6.1", "legacy"),
    ):
        programs("iptables", says)
        assert iptables_variants.chosen() == variant
        assert wiring._chosen("iptables") == f"iptables-{variant}"
