"""Decides what the host should carry, and brings it there: no I/O of its own."""
