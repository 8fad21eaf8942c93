"""Is told what the operator does, and counts it by one of the operator's names."""

from prometheus_client import Counter

DONE = Counter("kmm_done", "What was done")


def kmm_observe(record):
    DONE.inc()
