"""Measurements of Freshet against hand-written baselines: `make bench`."""

import os

# Before numpy is imported, and as lanes do it: see `streams.cli.lanes`.
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
