"""`kmm run`: the operator, until a signal stops it."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path

from kmm.config import read_config
from kmm.errors import ConfigError
from kmm.loader import load_catalog
from kmm.runtime.app import App
from kmm.runtime.logs import log_to_standard_error
from kmm.runtime.transport import connect

_LEVELS = ("debug", "info", "warning", "error")


def run(kubeconfig: Path | None, config_file: Path | None, log_level: str) -> int:
    """Run until SIGTERM or SIGINT. Return 1 where the lease was lost. Raises ConfigError."""
    if log_level not in _LEVELS:
        raise ConfigError(f'log level "{log_level}" is unknown: it is {", ".join(_LEVELS)}')
    config = read_config(os.environ, config_file)
    if kubeconfig is None and "KUBERNETES_SERVICE_HOST" in os.environ and not config.operator_namespace:
        raise ConfigError("OPERATOR_NAMESPACE is not set: in a cluster it names the namespace that this runs in")
    catalog = load_catalog(config.plugins.allow, config.settings_of, options=config.plugins.options.keys())
    log_to_standard_error(log_level.upper())
    app = App(config, catalog, connect(kubeconfig))
    told = threading.Event()
    for each in (signal.SIGTERM, signal.SIGINT):
        signal.signal(each, lambda *_: told.set())
    app.start()
    while not told.wait(0.2) and not app.ended.is_set():
        pass
    app.stop()
    return int(app.failed)
