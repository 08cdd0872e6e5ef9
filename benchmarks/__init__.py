"""Benchmarks. Compare only figures of one run."""
