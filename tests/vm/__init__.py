"""A test bed of real machines: Debian with systemd and a kernel of its own, under QEMU.

The machines are on the LAN of a `tests.bed.Bed`, whose warden ends them, however the tests end.
"""

from tests.vm.machine import Machine

__all__ = ["Machine"]
