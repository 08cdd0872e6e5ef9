"""What a step changed, kept until it is undone: copies of files, and containers to start again."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from hashlib import sha256
from pathlib import Path

from driver.errors import Conflict, HostError
from driver.files import read_file, write_file
from driver.setup.migration.docker_files import Changes

FOLDER = "migration"  # in the state folder
MODE = 0o600  # a file may hold a password
NEW_FILE = {".service": 0o644, ".conf": 0o644, ".json": 0o644, ".env": 0o644}


@dataclass(slots=True)
class Record:
    """The record of one step, in a folder of its own.

    `copies`: by path, the copy's name, "" if there was no file. `written`: by path, the SHA-256 of
    what the step wrote, "" if it removed the file. `containers`: those that ran before. `prefix`:
    what docker0 had. `finished`: nothing of the step is left to do.
    """

    folder: Path
    copies: dict[str, str] = field(default_factory=dict)
    written: dict[str, str] = field(default_factory=dict)
    containers: list[str] = field(default_factory=list)
    prefix: str = ""
    finished: bool = False

    @classmethod
    def read(cls, state: Path, step: str) -> Record | None:
        """Return the record of a step, None if it was never begun. Errors: HostError."""
        folder = state / FOLDER / step
        try:
            return cls(folder, **json.loads(read_file(folder / "record.json")))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError) as error:
            raise HostError(f"{folder}/record.json cannot be read: {error}") from error

    @classmethod
    def of(cls, state: Path, step: str) -> Record:
        """Return the record of a step, or a new one. Errors: HostError."""
        return cls.read(state, step) or cls(state / FOLDER / step)

    def save(self) -> None:
        """Write the record. Errors: HostError."""
        fields = asdict(self)
        del fields["folder"]
        self._write(self.folder / "record.json", json.dumps(fields, indent=1))

    def change(self, changes: Changes) -> None:
        """Keep copies of files, then change these. Errors: HostError."""
        for path in changes:
            if str(path) not in self.copies:
                self.copies[str(path)] = name = self._copied(path)
                if name:
                    self._write(self.folder / name, _text(path) or "")
        self.written |= {str(path): _hash(new) for path, new in changes.items()}
        self.save()
        for path, new in changes.items():
            _put(path, new, NEW_FILE.get(path.suffix, MODE))

    def check(self) -> None:
        """Check that nobody has changed the files since. Errors: Conflict naming the file."""
        for name, written in self.written.items():
            path, now = Path(name), _hash(_text(Path(name)))
            if now not in (written, _hash(self._before(name))):
                copy = self.copies[name]
                kept = f"as it was it is in {self.folder / copy}" if copy else "it was not there"
                raise Conflict(f"{path} was changed since; {kept}: put back what you want by hand")

    def restore(self) -> None:
        """Put back the files as they were. Errors: HostError."""
        for name in self.written:
            _put(Path(name), self._before(name), MODE)

    def remove(self) -> None:
        """Remove the record with its copies."""
        (self.folder / "record.json").unlink(missing_ok=True)  # first: it names the copies
        for file in self.folder.iterdir():
            file.unlink()
        self.folder.rmdir()

    def _before(self, name: str) -> str | None:
        copy = self.copies[name]
        return _text(self.folder / copy) if copy else None

    def _copied(self, path: Path) -> str:
        return str(path).strip("/").replace("/", "-") if path.exists() else ""

    def _write(self, path: Path, text: str) -> None:
        try:
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_file(path, text.encode(errors="surrogateescape"), MODE)
        except OSError as error:
            raise HostError(f"{path} cannot be written: {error.strerror}") from error


def _text(path: Path) -> str | None:
    try:
        return read_file(path).decode(errors="surrogateescape")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise HostError(f"{path} cannot be read: {error.strerror}") from error


def _hash(text: str | None) -> str:
    return "" if text is None else sha256(text.encode(errors="surrogateescape")).hexdigest()


def _put(path: Path, text: str | None, mode: int) -> None:
    """Write or remove a file; an existing one keeps its mode and owner. Errors: HostError."""
    try:
        if text is None:
            path.unlink(missing_ok=True)
        else:
            write_file(path, text.encode(errors="surrogateescape"), mode)
    except OSError as error:
        raise HostError(f"{path} cannot be changed: {error.strerror}") from error
