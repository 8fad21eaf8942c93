"""Logs: one line of JSON each, with what was done, to what, and on whose behalf."""

from __future__ import annotations

import json
import logging
import sys
import warnings
from datetime import UTC, datetime

from kmm.contract import ContractDeprecation

_OWN = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """A record as one line of JSON."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line."""
        at = datetime.fromtimestamp(record.created, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        said: dict[str, object] = {"time": at, "level": record.levelname.lower(), "msg": record.getMessage()}
        said |= {key.removeprefix("action_"): value for key, value in vars(record).items() if key not in _OWN}
        if record.exc_info:
            said["trace"] = self.formatException(record.exc_info)
        return json.dumps(said, ensure_ascii=False, default=str)


def log_to_standard_error(level: str = "INFO") -> None:
    """Write all logs as JSON lines to standard error, and once what a plugin uses of the contract that will go."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Its warnings quote whole URLs; what matters of them is in our own errors.
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.captureWarnings(capture=True)
    warnings.simplefilter("once", ContractDeprecation)
