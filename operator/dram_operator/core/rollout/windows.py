"""When a rollout may move forward: windows by cron's schedules in named time zones.

Schedules behave like Debian's cron on the days when clocks change: a start in the hour that is skipped happens right after it, and one in the hour that
comes twice happens once. A window lasts its seconds, whatever the clocks on the wall do meanwhile.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

from dram_operator.api.rollout_spec import Window


class WindowInvalid(ValueError):
    """A schedule or time zone that does not exist; the message says which."""


@dataclass(frozen=True)
class Opening:
    """Whether forward moves are allowed, and until when that is certain."""

    is_open: bool
    changes_at: datetime | None
    """When to look again; None when there are no windows."""


def opening(windows: Iterable[Window], now: datetime) -> Opening:
    """Whether any window is open; always, when there are none. Raises WindowInvalid."""
    each = [_opening(window, now) for window in windows]
    changes = [one.changes_at for one in each if one.changes_at]
    return Opening(not each or any(one.is_open for one in each), min(changes, default=None))


def _opening(window: Window, now: datetime) -> Opening:
    lasts = timedelta(seconds=window.duration_seconds)
    # Every schedule that CronSim takes has a start within its horizon of fifty years.
    start = next(start for start in _starts(window, now - lasts) if start + lasts > now)
    return Opening(start <= now, start + lasts if start <= now else start)


def _starts(window: Window, since: datetime) -> Iterable[datetime]:
    """Starts after a moment, in UTC: arithmetic on local times would follow the clocks on the wall."""
    try:
        local = since.astimezone(ZoneInfo(window.time_zone))
        schedule = CronSim(window.schedule, local)
    except (ZoneInfoNotFoundError, ValueError) as error:
        raise WindowInvalid(f"'{window.time_zone}' is not a time zone that exists") from error
    except CronSimError as error:
        raise WindowInvalid(f"'{window.schedule}' is not a schedule: {error}") from error
    return (start.astimezone(UTC) for start in schedule)
