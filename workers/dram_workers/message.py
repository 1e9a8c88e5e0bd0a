"""The termination message: what a container leaves behind for who reads its status."""

import logging
import os
from pathlib import Path

from dram_workers.results import StageMessage

TERMINATION_LOG = "DRAM_TERMINATION_LOG"
"""Environment variable that names the file; the default is Kubernetes' own."""
DEFAULT_FILE = Path("/dev/termination-log")
MESSAGE_BYTES = 4096
TEXT_CHARACTERS = 700
"""Room for message and remedy each: with the largest result, JSON escapes included, they stay below the limit."""

logger = logging.getLogger(__name__)


def write_message(message: StageMessage) -> None:
    """Write the message, at most 4 KiB of JSON; without a container, and so without the file, do nothing."""
    named = os.environ.get(TERMINATION_LOG)
    if named is None and not DEFAULT_FILE.exists():
        return
    path = Path(named) if named else DEFAULT_FILE
    try:
        path.write_bytes(fit(message))
    except OSError as error:
        logger.warning("termination message: %s", error)


def fit(message: StageMessage) -> bytes:
    """The message as JSON, its texts cut until it is short enough."""
    characters = TEXT_CHARACTERS
    while True:
        short = message.model_copy(
            update={
                "message": _cut(message.message, characters),
                "remedy": _cut(message.remedy or "", characters) or None,
            }
        )
        body = short.model_dump_json(exclude_none=True, exclude_defaults=True).encode()
        if len(body) <= MESSAGE_BYTES or characters == 0:
            return body
        characters //= 2


def _cut(text: str, characters: int) -> str:
    return text if len(text) <= characters else text[: max(0, characters - 1)] + "…" * (characters > 0)
