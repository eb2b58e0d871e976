"""Limits of studies, for whoever need not load the whole specification."""

MAX_CONCURRENCY = 64
"""Trials of one study that may run at the same time."""
MAX_TRIALS = 10_000
