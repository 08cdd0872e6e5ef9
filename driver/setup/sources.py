"""What sets the settings: options, variables, and the files that the service reads.

The service's unit makes variables of the files. The other commands read the files themselves, so
that all find the same settings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from driver.config import Setting
from driver.errors import FlannelError, Unavailable
from driver.setup import settings_file

DEFAULT = "default"
ENVIRONMENT = "environment"


@dataclass(frozen=True, slots=True)
class Sources:
    """All that sets settings: an option goes before a variable, a variable before a file.

    `files`: by variable, its value and the file that sets it. `faults`: why a file could not be
    read, a sentence each.
    """

    options: Mapping[str, str | None]
    environment: Mapping[str, str]
    files: Mapping[str, tuple[str, Path]]
    faults: tuple[str, ...] = ()

    @classmethod
    def read(cls, options: Mapping[str, str | None], environment: Mapping[str, str]) -> Sources:
        """Read the files, and put them below options and environment."""
        files: dict[str, tuple[str, Path]] = {}
        faults = []
        for path in settings_file.IN_ORDER:
            try:
                files |= {name: (value, path) for name, value in settings_file.read(path).items()}
            except PermissionError:
                faults.append(f"only root may read {path}: run the command with sudo")
            except FlannelError as error:
                faults.append(str(error))
        return cls(options, environment, files, tuple(faults))

    @property
    def variables(self) -> dict[str, str]:
        """Return the variables as `Config.read` takes them. An empty one counts as not set."""
        values = {name: value for name, (value, _) in self.files.items()}
        return values | {name: value for name, value in self.environment.items() if value}

    def check(self) -> None:
        """Refuse to go on with only a part of the settings. Errors: Unavailable."""
        if self.faults:
            raise Unavailable(self.faults[0])

    def value(self, setting: Setting) -> tuple[str, str]:
        """Return the value of a setting and where it comes from.

        The latter is its option, "environment", the path of a file, or "default".
        """
        option = self.options.get(setting.option)
        variable = self.environment.get(setting.variable)
        in_file, path = self.files.get(setting.variable, ("", None))
        if option:
            return option, setting.option
        if variable and variable != in_file:
            return variable, ENVIRONMENT
        return (in_file, str(path)) if in_file else (setting.default, DEFAULT)
