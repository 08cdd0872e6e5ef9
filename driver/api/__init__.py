"""The calls of Docker and of the command line, one module a group."""
