"""Some machines on one LAN, for the time of a `with` block."""

import itertools
from typing import Self

from tests.bed import Bed
from tests.vm.base import SNAPSHOT, base, copy
from tests.vm.machine import Machine


class Lab(Bed):
    """A bed with real machines: `machine` adds one, `outside` and `client` are as on any bed."""

    def __init__(self, *suites: str) -> None:
        """Make the LAN; `suites` are the Debian releases that machines will have."""
        # before the LAN: a node sees of the outside's files what was there when it started
        self._bases = {suite: base(suite) for suite in suites}
        self._machine_numbers = itertools.count(101)
        super().__init__()

    def machine(self, name: str, suite: str = "bookworm") -> Machine:
        """Add a machine, running, with Docker, the image `box` and an address."""
        hardware, disk = self._bases[suite]
        made = Machine(self, name, f"192.0.2.{next(self._machine_numbers)}", hardware)
        copy(disk, made.disk)
        made.resume(SNAPSHOT)
        made.plug_in()
        return made

    def __enter__(self) -> Self:
        return self
