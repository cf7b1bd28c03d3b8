"""Benchmarks: what a page costs and how long a row takes, measured on real servers in one run."""
