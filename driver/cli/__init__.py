"""The subcommands of `docker-flannel`, a module each.

The first line of its docstring is its help, `SETTINGS` are settings that it takes as options,
`arguments` adds other arguments if it has any, and `run` runs it.
"""

COMMANDS = (
    "serve",
    "status",
    "ps",
    "ports",
    "init",
    "forget",
    "adopt",
    "setup-daemon",
    "docker-opts",
    "backup",
    "restore",
)
