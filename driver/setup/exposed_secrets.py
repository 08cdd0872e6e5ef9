"""Find secrets in settings files that every user of the host can read."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from contextlib import suppress

from driver.config import SETTINGS
from driver.errors import FlannelError
from driver.setup import settings_file


def secrets_shown() -> Iterator[str]:
    """Return a sentence for each secret that a file shows to everybody."""
    for file in settings_file.IN_ORDER:
        with suppress(OSError, FlannelError):  # there is none, or the service does not use it
            if file.stat().st_mode & stat.S_IROTH:
                found = settings_file.read(file)
                for name in (s.variable for s in SETTINGS if s.secret and found.get(s.variable)):
                    yield (
                        f"{file} holds {name}, and every user of this host can read it: run "
                        f"`chmod 600 {file}`"
                    )
