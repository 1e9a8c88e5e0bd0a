"""The latest progress report of every job, in memory only: it never decides anything, and the next report replaces it."""

from collections.abc import Callable
from datetime import datetime

from dram_operator.core.observed import ProgressView
from dram_operator.runtime.cache import Key
from dram_workers.results import Progress


class ProgressBoard:
    """Who reported what, and when this attempt first reported, for its rate."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        self._clock = clock
        self._views: dict[Key, ProgressView] = {}

    def post(self, key: Key, report: Progress) -> None:
        """Take a report in."""
        self._views[key] = ProgressView.following(self._views.get(key), report, self._clock())

    def view(self, key: Key) -> ProgressView | None:
        """What `decide` is shown."""
        return self._views.get(key)

    def latest(self, key: Key) -> Progress | None:
        """The latest report."""
        view = self._views.get(key)
        return view.latest if view else None

    def forget(self, key: Key) -> None:
        """The job is gone."""
        self._views.pop(key, None)
