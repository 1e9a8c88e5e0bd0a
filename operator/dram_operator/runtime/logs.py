"""Structured logs: one JSON object a line, with the object that it is about."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Literal

from dram_operator.core.times import stamp

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {
    "message",
    "asctime",
    "taskName",
    "settings",
    "k8s_skip",
    "k8s_ref",
}
"""What every record has, and what kopf hangs on its own."""


class JsonFormatter(logging.Formatter):
    """Time, level, message, and every field given as `extra`."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        line: dict[str, object] = {
            "time": stamp(datetime.fromtimestamp(record.created, UTC)),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= fields_of(record)
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


class TextFormatter(logging.Formatter):
    """The same for people."""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it where there is one."""
        fields = " ".join(f"{name}={value}" for name, value in fields_of(record).items())
        record.message = " ".join(part for part in (record.getMessage(), fields) if part)
        text = f"{stamp(datetime.fromtimestamp(record.created, UTC))} {record.levelname:7} {record.message}"
        return f"{text}\n{self.formatException(record.exc_info)}" if record.exc_info else text


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """The fields given as `extra`, those without a value left out."""
    return {name: value for name, value in vars(record).items() if name not in _STANDARD and value is not None}


def configure(level: str, form: Literal["json", "text"]) -> None:
    """Log to standard error; kopf speaks only when something is wrong, since its handlers only pass events on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    if level != "DEBUG":
        logging.getLogger("kopf").setLevel(logging.WARNING)
