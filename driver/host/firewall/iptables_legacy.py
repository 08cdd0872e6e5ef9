"""Tables of legacy iptables, by python-iptables, and a monitor of the one that Docker uses.

python-iptables is imported only when a table is read or changed: its use makes tables live, which
would change how packets pass on a host that has none. It takes rules as iptables-restore does.
Source: linux/netfilter_ipv4/ip_tables.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import shlex
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from driver.errors import HostError
from driver.host.firewall.iptables_rendering import CHAIN_PREFIX, Chains

if TYPE_CHECKING:
    import iptc

LIVE = Path("/proc/thread-self/net/ip_tables_names")
PATIENCE_S = 2.0
FILTER = "filter"
_FIELDS = {"-s": "src", "-d": "dst", "-i": "in_interface", "-o": "out_interface", "-p": "protocol"}
_HEAD, _ELEMENTS = 84, 112  # of an entry; in between are offsets and counters
_EXTENSION = struct.Struct("=H29s")
_GET_INFO, _INFO = 64, struct.Struct("=32s13I")  # IPT_SO_GET_INFO, struct ipt_getinfo
_libc = ctypes.CDLL(None, use_errno=True)


def live() -> list[str]:
    """List the tables in use; asking makes none so."""
    return LIVE.read_text().split() if LIVE.exists() else []


def read(name: str, exact: str) -> Chains:
    """List the rules of a table as `iptables_variants.read` does. Errors: HostError."""
    with _open(name) as table:
        return _chains(table, exact)


def change(name: str, commands: Iterable[str]) -> None:
    """Carry out commands of iptables-restore in one commit. Errors: HostError."""
    with _open(name) as table:
        for command in commands:
            _carry_out(table, command)
        table.commit()


@contextmanager
def _open(name: str) -> Iterator[iptc.Table]:
    """Yield a table as it is now, under the lock that iptables itself takes.

    A commit writes the whole table, so somebody else's change in between would be lost.
    """
    import iptc  # noqa: PLC0415  see the module's docstring

    _fit()
    with _xtables_lock():
        table = None
        try:
            # python-iptables looks up targets in the tables named here: only this one is open
            iptc.Table.existing_table_names.update({t: t == name for t in iptc.Table.ALL})
            table = iptc.Table(name, autocommit=False)
            table.refresh()
            yield table
        except (iptc.IPTCError, iptc.XTablesError) as error:
            raise HostError(f"iptables-legacy refused: {error}") from error
        finally:
            if table is not None:
                table.close()


@cache
def _fit() -> None:
    """Correct python-iptables' length of libxtables' entries for options: 8 bytes more.

    That of its version 1.2 is from before iptables 1.8.11: with later ones it finds only the first.
    Source: iptables, include/xtables.h, struct xt_option_entry, its last field.
    """
    iptc: Any = import_module("iptc")
    entry = iptc.xtables.xt_option_entry
    if iptc.Match(iptc.Rule(), "addrtype")._module.x6_options[1].name:
        return  # the second is found: "dst-type"
    step = ctypes.sizeof(entry) + 8

    def lookup(_: object, entries: Any, name: bytes) -> object:
        at = ctypes.addressof(entries.contents)
        while (found := entry.from_address(at)).name not in (name, None):
            at += step
        return found if found.name else None

    iptc.xtables.xtables._option_lookup = lookup


@contextmanager
def _xtables_lock() -> Iterator[None]:
    path = Path(os.environ.get("XTABLES_LOCKFILE", "/run/xtables.lock"))
    limit = time.monotonic() + PATIENCE_S
    with path.open("a") as lock:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > limit:
                    raise HostError(f"another program keeps the iptables lock {path}") from None
                time.sleep(0.02)
        yield


def _chains(table: iptc.Table, exact: str) -> Chains:
    if not exact:
        return {
            chain.name: [
                _spec(rule, whole=chain.name.startswith(CHAIN_PREFIX)) for rule in chain.rules
            ]
            for chain in table.chains
        }
    return {
        chain.name: list(_quick(table, chain, exact))
        for chain in table.chains
        if chain.name.startswith(exact) or table.builtin_chain(chain.name)
    }


def _spec(rule: iptc.Rule, *, whole: bool = False) -> str:
    """Write a rule as iptables-save would, in the detail that shows our rules and Docker's.

    `whole`: with the parameters of its matches, which take python-iptables 1 ms each.
    """
    conditions = [
        (rule.src != "0.0.0.0/0.0.0.0", f"-s {rule.src}"),
        (rule.dst != "0.0.0.0/0.0.0.0", f"-d {rule.dst}"),
        (rule.in_interface, f"-i {rule.in_interface}"),
        (rule.out_interface, f"-o {rule.out_interface}"),
        (rule.protocol != "ip", f"-p {rule.protocol}"),
        *(
            (match.name != "comment", f"-m {match.name}{_asked(match) if whole else ''}")
            for match in rule.matches
        ),
    ]
    return " ".join([*(text for there, text in conditions if there), f"-j {rule.target.name}"])


def _asked(match: iptc.Match) -> str:
    words = match.get_all_parameters().items()
    return "".join(f" --{' '.join([name, *values])}" for name, values in words)


def _quick(table: iptc.Table, chain: iptc.Chain, exact: str) -> Iterator[str]:
    """Yield rules as `read` does with `exact`, in 5 µs each; python-iptables' objects take 200.

    A whole rule is without its counters, and without the offset of the chain that it leads to,
    which moves when others change.
    """
    whole = chain.name.startswith(exact)
    entry = table.first_rule(chain.name)
    while entry:
        raw = ctypes.string_at(ctypes.addressof(entry), entry.next_offset)
        *matches, (kind, data) = _extensions(raw)
        target = (table.get_target(entry) or b"").decode()
        if whole:
            rest = data if kind else target.encode()  # chains and verdicts are of no kind
            yield repr((raw[:_HEAD], matches, kind, rest))
        elif not any(raw[:_HEAD]) and all(match == b"comment" for match, _ in matches):
            yield f"-j {target}"
        elif target.startswith(exact):
            yield _spec(table.create_rule(entry, chain))
        else:
            yield f"-m something -j {target}"
        entry = table.next_rule(entry)


def _extensions(raw: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Yield name and data of a rule's matches and of its target."""
    start = _ELEMENTS
    while start < len(raw):
        size, name = _EXTENSION.unpack_from(raw, start)
        yield name.partition(b"\0")[0], raw[start + _EXTENSION.size : start + size]
        start += size


def _carry_out(table: iptc.Table, line: str) -> None:
    """Carry out one command of iptables-restore."""
    import iptc  # noqa: PLC0415  see the module's docstring

    verb, _, rest = line.partition(" ")
    name, _, spec = rest.partition(" ")
    if verb.startswith(":"):
        if table.is_chain(verb[1:]):
            table.flush_entries(verb[1:])
        else:
            table.create_chain(verb[1:])
    elif verb == "-X":
        table.delete_chain(name)
    elif verb == "-A":
        table.append_entry(name, _rule(spec).rule)
    elif verb == "-I":
        number, _, spec = spec.partition(" ")
        table.insert_entry(name, _rule(spec).rule, int(number) - 1)
    elif name.startswith(CHAIN_PREFIX):
        rule = _rule(spec)
        table.delete_entry(name, rule.rule, rule.mask)
    else:  # as `read` wrote it, which leaves much out
        chain = iptc.Chain(table, name)
        for rule in [rule for rule in chain.rules if _spec(rule) == spec][:1]:
            chain.delete_rule(rule)


def _rule(spec: str) -> iptc.Rule:
    """Parse what iptables-restore takes after "-A CHAIN ".

    Only masquerading needs python-iptables' own check, which prints a rule and reads it again, at
    1 ms; ports, of which there may be thousands, do not.
    """
    import iptc  # noqa: PLC0415  see the module's docstring

    rule, words, invert = iptc.Rule(), shlex.split(spec), ""
    part: iptc.Match | iptc.Target | None = None
    while words:
        word = words.pop(0)
        if word == "!":
            invert = "!"
        elif word in _FIELDS:
            setattr(rule, _FIELDS[word], invert + words.pop(0))
            invert = ""
        elif word == "-m":
            part = rule.create_match(words.pop(0))
        elif word in ("-j", "-g"):
            part = rule.create_target(words.pop(0), goto=word == "-g")
        elif part is not None:
            bare = not words or words[0].startswith("-")
            part.set_parameter(word.removeprefix("--"), "" if bare else words.pop(0))
    if rule.target.name == "MASQUERADE":
        rule.final_check()
    return rule


class LegacyFilter:
    """Notices changes of the filter table, which reports none.

    The kernel returns in microseconds how many rules it has and where each chain begins and ends.
    Asking would make the table live, so only a live one is asked for. It is that of the namespace
    of the thread that makes this. Any thread may ask.
    """

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)  # any does; it is not bound
        self._last = b""

    def disturbed(self) -> bool:
        """Whether it changed since this was last asked."""
        before, self._last = self._last, self._look()
        return self._last != before

    def _look(self) -> bytes:
        if FILTER not in live():
            return b""
        # Python's own getsockopt does not hand the table's name over.
        answer = ctypes.create_string_buffer(FILTER.encode(), _INFO.size)
        size = ctypes.c_uint(_INFO.size)
        place = self._socket.fileno(), socket.IPPROTO_IP, _GET_INFO
        code = _libc.getsockopt(*place, answer, ctypes.byref(size))
        return b"" if code else answer.raw

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
