"""What `kmm run` becomes: an interpreter of its own, without what the command line has loaded: it lives for months.

Signals are waited for before all else: loading takes a while, and the first process of a container would not hear of
one that came before.
"""

from __future__ import annotations

import signal
import sys
import threading

STOPPED_BY = (signal.SIGTERM, signal.SIGINT)


def main() -> int:
    """Run until one of the signals; return the exit code."""
    told = threading.Event()
    for each in STOPPED_BY:
        signal.signal(each, lambda *_: told.set())
    signal.pthread_sigmask(signal.SIG_UNBLOCK, STOPPED_BY)  # `kmm run` has held them back
    from kmm.runtime.process import main as run  # noqa: PLC0415 -- not before signals are heard

    kubeconfig, config_file, log_level = sys.argv[1:]
    return run(kubeconfig, config_file, log_level, told)


if __name__ == "__main__":
    sys.exit(main())
