"""Decides what the host should have, and applies it through adapters; no I/O of its own."""
