"""The subcommands of `docker-flannel`."""
