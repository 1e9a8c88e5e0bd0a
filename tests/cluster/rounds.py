"""Something that looks at the cluster again and again while a test runs."""

import threading
from abc import ABC, abstractmethod
from types import TracebackType
from typing import Self

POLL_SECONDS = 0.05


class Rounds(ABC):
    """`with` a subclass calls its `look` in a thread, until that says that it has seen enough or the block ends."""

    @abstractmethod
    def look(self) -> bool:
        """One look; whether it was the last one."""

    def __enter__(self) -> Self:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__)
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            if self.look():
                return
