"""Logs: text for people, JSON lines for machines. An event is a name and fields, not a sentence."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

from ssastore.core.requestid import REQUEST, name_of

_STANDARD = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """The fields of an event; a line that is written on behalf of a request has its ``id``."""
    caused_by = {"id": name_of(upper)} if (upper := REQUEST.get()) else {}
    return caused_by | {name: value for name, value in record.__dict__.items() if name not in _STANDARD}


class TextFormatter(logging.Formatter):
    """``12:00:00.123 WARNING n1/0 connection.closed reason=...``"""

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback where there is one."""
        at = time.strftime("%H:%M:%S", time.localtime(record.created))
        pairs = "".join(f" {name}={value!r}" for name, value in _fields(record).items())
        line = f"{at}.{int(record.msecs):03d} {record.levelname} {self._source} {record.getMessage()}{pairs}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self._source = source

    def format(self, record: logging.LogRecord) -> str:
        """The event as JSON."""
        event: dict[str, Any] = {
            "ts": round(record.created, 3),
            "level": record.levelname.lower(),
            "source": self._source,
            "event": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            event["traceback"] = self.formatException(record.exc_info)
        return json.dumps(event, default=repr)


def configure_logging(source: str, *, log_format: str = "text", level: str = "INFO") -> None:
    """Log to standard error. ``source`` names this process, as in ``n1/0``."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter(source) if log_format == "json" else TextFormatter(source))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
