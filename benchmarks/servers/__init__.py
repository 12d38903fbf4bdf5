"""Servers that benchmarks measure, each a process of its own, and the task that they serve."""
