"""The subcommands of `docker-flannel`, a module each.

The first line of the module's docstring is the help, `SETTINGS` are the settings it takes as
options, `arguments` adds other arguments if there are any, and `run` runs the command.
"""

COMMANDS = (
    *("serve", "status", "ps", "ports", "init", "forget", "adopt"),
    *("setup-daemon", "docker-opts", "backup", "restore"),
)
