"""`kmm run`: becomes the operator."""

from __future__ import annotations

import os
import signal
import sys
from typing import NoReturn

# Threads that each keep memory of their own for what they read cost more than they gain.
_ENVIRONMENT = {"MALLOC_ARENA_MAX": "2"}


def run(kubeconfig: str, config_file: str, log_level: str) -> NoReturn:
    """Go on as the operator, in an interpreter that has not loaded the command line; never returns."""
    # Held back until whoever comes next can hear them: both outlive the change.
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
    words = [sys.executable, "-P", "-m", "kmm.runtime", kubeconfig, config_file, log_level]
    os.execve(sys.executable, words, {**_ENVIRONMENT, **os.environ})  # noqa: S606 -- no shell is wanted
