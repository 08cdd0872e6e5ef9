"""The subcommands of `docker-flannel`, a module each.

The first line of the module's docstring is the help, `SETTINGS` are the settings it takes as
options, and `run` runs the command. If there are any, `arguments` adds other arguments, and
`VALUES` has functions that propose values for them: see `driver.cli.complete`.
"""

from itertools import chain

GROUPS = {
    "Set up this host": (
        *("check", "init", "join", "leave"),
        *("setup-daemon", "docker-opts", "migrate"),
    ),
    "See what there is": ("status", "ps", "ports", "config"),
    "Repair": ("adopt", "forget", "backup", "restore"),
    "The service itself": ("serve",),
    "Remove it": ("take-down",),
}
COMMANDS = tuple(chain.from_iterable(GROUPS.values()))
