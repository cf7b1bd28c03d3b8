"""Keeps a casino operator's CRM in step with the operator's database."""

import os

__version__ = "0.1.0"

# Pages are small and every loop has a thread already: more of polars' own cost memory and time. It reads this once.
# Frames are asked with `select_seq` and `with_columns_seq`: others hand their expressions to that one thread, and wait.
os.environ.setdefault("POLARS_MAX_THREADS", "1")
# What a page needed the next page needs again: half a second is too soon to give memory back, which polars does.
os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:10000")
