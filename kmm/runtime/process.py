"""The operator as a process, until it is told to stop."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Sequence
from http import HTTPStatus
from pathlib import Path

from kmm.admission import printable
from kmm.config import read_config
from kmm.errors import ConfigError
from kmm.loader import load_catalog
from kmm.runtime.advice import advice
from kmm.runtime.app import App
from kmm.runtime.kinds import LEASE, MODULE, path_of
from kmm.runtime.leader import LEASE_NAME
from kmm.runtime.logs import log_to_standard_error
from kmm.runtime.transport import ApiError, Transport, Unreachable, connect

_LEVELS = ("debug", "info", "warning", "error")


def run(
    kubeconfig: Path | None, config_file: Path | None, log_level: str, stopped_by: Sequence[signal.Signals]
) -> int:
    """Run until one of these signals. Return 1 where the lease was lost. Raises ConfigError."""
    if log_level not in _LEVELS:
        raise ConfigError(f'log level "{log_level}" is unknown: it is {", ".join(_LEVELS)}')
    config = read_config(os.environ, config_file)
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ and not config.operator_namespace:
        raise ConfigError("OPERATOR_NAMESPACE is not set: in a cluster it names the namespace that this runs in")
    catalog = load_catalog(config.plugins.allow, config.settings_of, options=config.plugins.options.keys())
    transport = connect(kubeconfig)
    log_to_standard_error(log_level.upper())
    _may(transport, config.namespace)
    app = App(config, catalog, transport)
    gc.collect()
    gc.freeze()  # what has been loaded stays: it need not be looked at again and again
    told: list[int] = []  # a handler may not take a lock, as an event would
    for each in stopped_by:
        signal.signal(each, lambda number, _: told.append(number))
    app.start()
    while not told and not app.ended.wait(0.2):
        pass
    app.stop()
    return int(app.failed)


def _may(transport: Transport, namespace: str) -> None:
    """Raise ConfigError where the first things that an operator does are forbidden: it would only wait and log."""
    for path, query in ((path_of(MODULE), {"limit": "1"}), (path_of(LEASE, namespace, LEASE_NAME), {})):
        try:
            transport.ask("GET", path, query=query, timeout_s=10)
        except ApiError as error:
            if error.code in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
                raise ConfigError(advice(error, transport.host)) from None
        except Unreachable as error:
            raise ConfigError(advice(error, transport.host)) from None


def main(kubeconfig: str, config_file: str, log_level: str, stopped_by: Sequence[signal.Signals]) -> int:
    """Run, with an empty text for what was not given; return the exit code."""
    try:
        return run(_path(kubeconfig), _path(config_file), log_level, stopped_by)
    except ConfigError as error:
        sys.stderr.write(printable(f"kmm: {error}") + "\n")
        return 2


def _path(given: str) -> Path | None:
    return Path(given) if given else None
