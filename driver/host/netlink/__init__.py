"""Netlink: requests, dumps, and what the kernel reports."""
