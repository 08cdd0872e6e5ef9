"""Reads and changes both iptables variants of a host in the same way.

"nft" is read and changed by its own programs, "legacy" by `iptables_legacy`. Both take rules as
iptables-restore does.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable

from driver.errors import HostError
from driver.host.firewall import iptables_legacy
from driver.host.firewall.iptables_changes import Commands
from driver.host.firewall.iptables_rendering import Chains, Tables
from driver.host.firewall.nft_generation import has_nf_tables

PATIENCE_S = 2.0


def variants() -> frozenset[str]:
    """Return the iptables variants in use; asking makes none so."""
    found = set()
    if shutil.which("iptables-nft-restore") and has_nf_tables():
        found.add("nft")
    if iptables_legacy.FILTER in iptables_legacy.live():
        found.add("legacy")
    return frozenset(found)


def chosen() -> str:
    """Return the variant of the host's own `iptables`; "legacy" where nft is not possible."""
    if not (shutil.which("iptables-nft-restore") and has_nf_tables()):
        return "legacy"
    program = shutil.which("iptables")
    return "nft" if program is None or "nf_tables" in _run([program, "--version"], "") else "legacy"


def read(variant: str, tables: Iterable[str], exact: str = "") -> Tables:
    """List the rules of tables; a legacy table that is not live has none.

    Legacy rules have only the detail that shows the gate and Docker's jumps. With `exact`, chains
    whose names begin with it have whole rules, in the kernel's own bytes; of other chains only the
    built-in ones are read, with their rules' targets and whether there are conditions.
    Errors: HostError.
    """
    if variant == "nft":
        return _read_nft(tables)
    live = iptables_legacy.live()
    return {name: iptables_legacy.read(name, exact) if name in live else {} for name in tables}


def change(variant: str, commands: Commands) -> None:
    """Carry out commands of iptables-restore by table, each table's in one transaction.

    Declaring a chain (":NAME - [0:0]") makes or empties it. Errors: HostError.
    """
    if variant == "nft":
        parts = [[f"*{table}", *lines, "COMMIT"] for table, lines in commands.items() if lines]
        if parts:
            text = "\n".join([line for part in parts for line in part] + [""])
            _run(["iptables-nft-restore", "--noflush", "-w"], text)
        return
    for name, lines in commands.items():
        if lines:
            iptables_legacy.change(name, lines)


def _read_nft(tables: Iterable[str]) -> Tables:
    found: Tables = {name: {} for name in tables}
    only = ["-t", next(iter(found))] if len(found) == 1 else []
    chains: Chains = {}
    for line in _run(["iptables-nft-save", *only], "").splitlines():
        if line.startswith("*"):
            chains = found.get(line[1:], {})
        elif line.startswith(":"):
            chains[line[1:].split()[0]] = []
        elif line.startswith("-A "):
            _, chain, rule = line.split(" ", 2)
            chains[chain].append(rule)
    return found


def _run(command: list[str], text: str) -> str:
    try:
        done = subprocess.run(
            command, input=text, capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise HostError(f"{command[0]} cannot be run: {error}") from error
    if done.returncode:
        reason = done.stderr.strip().partition("\n")[0] or f"exit code {done.returncode}"
        raise HostError(f"{command[0]} failed: {reason}")
    return done.stdout
