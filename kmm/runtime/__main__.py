"""What `kmm run` becomes: an interpreter of its own, without what the command line has loaded: it lives for months.

Signals are heard before all else: loading takes a while, and what the first process of a container has no handler for
does not end it.
"""

from __future__ import annotations

import os
import signal
import sys

STOPPED_BY = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Run until one of the signals; return the exit code."""
    for each in STOPPED_BY:
        signal.signal(each, lambda *_: os._exit(0))  # nothing has begun: nothing is to be ended well
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPED_BY)  # `kmm run` has held them back
    from kmm.runtime.process import main as run  # noqa: PLC0415 -- not before signals are heard

    kubeconfig, config_file, log_level = sys.argv[1:]
    return run(kubeconfig, config_file, log_level, STOPPED_BY)


if __name__ == "__main__":
    sys.exit(main())
