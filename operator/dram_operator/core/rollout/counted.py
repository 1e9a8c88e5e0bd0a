"""Devices that were counted before they were stored: which queries are asked of the recorded counts, and what the answers mean.

The same words as for devices that are listed (telemetry.py), told by counts: a count is of what devices told last, so a look remembers nothing.

| asked | says |
| --- | --- |
| devices within the look-back, by the labels that the rollout selects by | who was there |
| devices within `offline.afterSeconds`, by the same labels | who is not offline |
| devices of the treated arm in the present attempt, by state and release | who reports, is well, or failed |
| devices that report, by release | who still runs a release that goes back |
| the time of the newest count | whether all this is true now |

Counts are kept for fixed spans (recording.py): each span of a rollout is rounded up to the next of them. A server that stops counting takes its devices
along; those that it knew stay known for a day, and not offline for `offline.afterSeconds`, as the devices of a server that stops listing do.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from math import isfinite

from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.core.rollout.answers import Answer, Sample, Trouble
from dram_operator.core.rollout.evidence import FRESH_INTERVALS
from dram_operator.core.rollout.inventory import LABEL_PREFIX, Group, Inventory
from dram_operator.core.rollout.observed import NOTHING, Totals
from dram_operator.core.rollout.recording import (
    AGES,
    COUNTS,
    FAILED,
    HEALTHY,
    KNOWN,
    REPORTING,
    SILENT,
    SOAKS,
    bucket,
)
from dram_operator.core.rollout.telemetry import NO_RELEASE, Subject

KEPT_SECONDS = 86_400
"""For how long devices stay known whose counts have ended."""

Labels = tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class CountQuestions:
    """The queries of one look."""

    known: str
    heard: str
    newest: str
    running: str
    states: str | None = None
    """None while there is no candidate."""


@dataclass(frozen=True)
class Counts:
    """The answers."""

    at: datetime
    known: Answer
    heard: Answer
    newest: Answer
    running: Answer
    states: Answer = NOTHING

    @property
    def trouble(self) -> Trouble | None:
        """The first thing that went wrong."""
        answers = (self.known, self.heard, self.newest, self.running, self.states)
        troubles = (answer.trouble or _trouble_of(answer.samples) for answer in answers)
        return next((trouble for trouble in troubles if trouble), None)

    def age_seconds(self) -> float | None:
        """Seconds since the newest count; None when there is none."""
        return self.at.timestamp() - self.newest.samples[0].value if self.newest.samples else None

    def inventory(self) -> Inventory:
        """The devices that were seen during the look-back, in groups of the same labels."""
        heard = {_labels(sample): sample.value for sample in self.heard.samples}
        found = {_labels(sample): round(sample.value) for sample in self.known.samples}
        silent = {labels: max(0, count - round(heard.get(labels, 0.0))) for labels, count in found.items()}
        return Inventory(groups=tuple(Group(found[one], dict(one), silent[one]) for one in sorted(found) if found[one]))

    def totals(self, digest: str | None) -> Totals:
        """How the devices are."""

        def of(state: str) -> int:
            return _sum(self.states.samples, state=state, release=digest or "")

        return Totals(
            reporting=_sum(self.states.samples, state=REPORTING),
            healthy=of(HEALTHY),
            gave_up=of(FAILED),
            silent=of(SILENT),
            running=_running(self.running.samples),
        )


def soak_seconds(interval_seconds: int) -> int:
    """For how long a counted device has to be well, and may be silent: three intervals, rounded up to what is recorded."""
    return bucket(FRESH_INTERVALS * interval_seconds, SOAKS)


def known_query(subject: Subject, labels: Iterable[str] = ()) -> str:
    """How many devices there are, by labels of their owner."""
    return _known(subject.channel, subject.lookback_seconds, KEPT_SECONDS, labels)


def count_questions(subject: Subject, labels: Iterable[str]) -> CountQuestions:
    """What to ask."""
    soak, by = soak_seconds(subject.interval_seconds), tuple(labels)
    away = bucket(subject.silence_seconds, AGES)
    arm = f'channel="{subject.channel}", attempt="{subject.attempt}", arm="treated", within=~"|{soak}"'
    reporting = f'channel="{subject.channel}", state="{REPORTING}", within="{soak}"'
    return CountQuestions(
        known=known_query(subject, by),
        heard=_known(subject.channel, subject.silence_seconds, min(away, KEPT_SECONDS), by),
        newest=f'max(timestamp({KNOWN}{{channel="{subject.channel}"}}))',
        running=f"sum by (release) ({COUNTS}{{{reporting}}})",
        states=f"sum by (state, release) ({COUNTS}{{{arm}}})" if subject.digest else None,
    )


def selected_labels(rollout: EdgeRollout) -> tuple[str, ...]:
    """The owner's labels that steps select by, now or before an edit: what groups are told apart by."""
    cohorts = (step.cohort for step in rollout.spec.strategy.steps if step.cohort and step.cohort.selector)
    asked = (each.selector.match_labels for each in cohorts if each.selector)
    reached = (each.match_labels for each in rollout.status.reach.cutoffs)
    return tuple(sorted({name for labels in (*asked, *reached) for name in labels}))


def grouped(inventory: Inventory, names: Iterable[str], counted: Inventory) -> Inventory:
    """Listed devices as groups; of those that were counted, as large a part is offline."""
    wanted, sizes = set(names), dict[Labels, int]()
    for device in inventory.devices:
        labels = tuple(sorted((name, value) for name, value in device.labels.items() if name in wanted))
        sizes[labels] = sizes.get(labels, 0) + 1
    heard = counted.known - sum(group.offline for group in counted.groups)
    silent = max(0, inventory.known - heard)
    return Inventory(
        groups=tuple(
            Group(count, dict(labels), round(silent * count / inventory.known)) for labels, count in sizes.items()
        )
    )


def is_current(counts: Counts, subject: Subject) -> bool:
    """Whether the newest count is young enough to tell of now."""
    age = counts.age_seconds()
    return age is not None and age <= soak_seconds(subject.interval_seconds)


def told_at(counts: Counts) -> str:
    """When counting ended, for people."""
    if not counts.newest.samples:
        return "nothing was counted within the last minutes"
    return f"the newest count is of {datetime.fromtimestamp(counts.newest.samples[0].value, UTC):%Y-%m-%d %H:%M:%S} UTC"


def _known(channel: str, seconds: int, kept: int, labels: Iterable[str]) -> str:
    series = f'{KNOWN}{{channel="{channel}", within="{bucket(seconds, AGES)}"}}'
    by = ", ".join(LABEL_PREFIX + name for name in labels)
    return f"sum by ({by}) (last_over_time({series}[{kept}s]))"


def _trouble_of(samples: Iterable[Sample]) -> Trouble | None:
    """A count is a finite number, and none is less than nothing."""
    return next((Trouble.NOT_A_NUMBER for one in samples if not isfinite(one.value) or one.value < 0), None)


def _labels(sample: Sample) -> Labels:
    own = ((name.removeprefix(LABEL_PREFIX), value) for name, value in sample.labels.items())
    return tuple(sorted(pair for pair in own if pair[1]))


def _sum(samples: Iterable[Sample], **labels: str) -> int:
    return round(sum(one.value for one in samples if labels.items() <= one.labels.items()))


def _running(samples: Iterable[Sample]) -> Mapping[str, int]:
    return {told: round(one.value) for one in samples if (told := one.labels.get("release", "none")) not in NO_RELEASE}
