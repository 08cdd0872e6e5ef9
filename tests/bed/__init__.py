"""A test bed on one machine: hosts with their own Docker, on a private LAN.

Nothing outside the bed is touched, and nothing of it outlives the process that made it.
"""

from tests.bed.bed import Bed
from tests.bed.commands import CommandError, Process, Result
from tests.bed.host import Host
from tests.bed.leaks import Snapshot, assert_no_leaks, diff, snapshot
from tests.bed.node import Node
from tests.bed.waiting import WaitError, wait_for

__all__ = [
    "Bed",
    "CommandError",
    "Host",
    "Node",
    "Process",
    "Result",
    "Snapshot",
    "WaitError",
    "assert_no_leaks",
    "diff",
    "snapshot",
    "wait_for",
]
