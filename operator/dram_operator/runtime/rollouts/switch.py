"""The installation's one switch that stops every forward move: a file, so that a mounted ConfigMap turns it without a restart."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

log = logging.getLogger(__name__)

CHECK_SECONDS = 5.0
OFF = ("", "false")


class Switch:
    """Whether the installation is frozen. Whatever the file says but `false` freezes: in doubt nothing moves."""

    def __init__(self, path: Path | None) -> None:
        self._path = path

    def is_on(self) -> bool:
        """Read the file; one that is not there freezes nothing."""
        if self._path is None:
            return False
        try:
            return self._path.read_text(encoding="utf-8").strip().lower() not in OFF
        except FileNotFoundError:
            return False
        except (OSError, ValueError) as error:
            log.warning("the installation is frozen, because %s cannot be read: %s", self._path, error)
            return True

    async def run(self, wake_all: Callable[[], None]) -> None:
        """Call `wake_all` whenever the switch was turned, until cancelled."""
        was_on = self.is_on()
        while True:
            await asyncio.sleep(CHECK_SECONDS)
            if self.is_on() is not was_on:
                was_on = not was_on
                log.warning("the installation is %s", "frozen" if was_on else "no longer frozen")
                wake_all()
