"""The subcommands of `docker-flannel`: a module each, with `HELP`, `arguments` and `run`."""

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
