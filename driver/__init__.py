"""A multi-host network and IPAM driver for plain Docker, on flannel."""

__version__ = "0.1.0"
