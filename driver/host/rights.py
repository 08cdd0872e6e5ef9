"""Check what this process may do."""

from __future__ import annotations

from pathlib import Path

from driver.errors import HostError

NEEDED = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13}  # the second for iptables' legacy tables
STATUS = Path("/proc/self/status")


def check_rights() -> None:
    """Check that the network may be changed: libiptc ends the process when the kernel refuses.

    Errors: HostError with the missing capabilities.
    """
    fields = dict(line.split(":\t", 1) for line in STATUS.read_text().splitlines() if ":\t" in line)
    effective = int(fields["CapEff"], 16)
    missing = [name for name, bit in NEEDED.items() if not effective >> bit & 1]
    if missing:
        raise HostError(
            f"docker-flannel may not change the network: it lacks {' and '.join(missing)}; start "
            "it as root, with its systemd unit for example"
        )
