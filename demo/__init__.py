"""A demonstration on this machine: `python -m demo`."""
