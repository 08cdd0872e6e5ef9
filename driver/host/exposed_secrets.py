"""Find secrets in settings files that every user of the host can read."""

from __future__ import annotations

import stat
from collections.abc import Collection, Iterable
from pathlib import Path

from driver.files import read_file

FILES = (Path("/etc/default/docker-flannel"), Path("/etc/default/flanneld"))


def secrets_shown(names: Collection[str], files: Iterable[Path] = FILES) -> list[str]:
    """Return a sentence for each of these variables that a file shows to everybody."""
    return [
        f"{file} holds {name}, and every user of this host can read it: run `chmod 600 {file}`"
        for file in files
        for name in _shown(file, names)
    ]


def _shown(file: Path, names: Collection[str]) -> list[str]:
    try:
        if not file.stat().st_mode & stat.S_IROTH:
            return []
        lines = read_file(file).decode(errors="replace").splitlines()
    except OSError:
        return []
    pairs = (line.removeprefix("export ").partition("=") for line in map(str.strip, lines))
    values = {name.strip(): value.strip("\"' ") for name, _, value in pairs}
    return [name for name in names if values.get(name)]
