"""The channel document from the status, and back: what devices are told is a pure function of what status says."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from dram_agent.document import ChannelDocument, Cohort, Release
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.api.rollout_spec import Step
from dram_operator.api.rollout_status import (
    Cutoff,
    EdgeRolloutStatus,
    Quarantine,
    Reach,
    ReleaseStatus,
    RollbackStatus,
)
from dram_operator.core.rollout.cohort import narrow, salt_of, widen
from dram_operator.core.rollout.inventory import Fleet
from dram_operator.core.times import stamp

QUARANTINED = 16
"""Releases that are remembered as bad; the oldest give way."""


@dataclass(frozen=True)
class Delivery:
    """How the installation lets devices ask."""

    poll_seconds: int = 300
    active_poll_seconds: int = 60
    backoff_seconds: int = 3600
    candidate_lease_seconds: int = 86_400
    frozen: bool = False
    """The installation's one switch that stops every forward move."""


def channel_document(rollout: EdgeRollout, delivery: Delivery) -> ChannelDocument:
    """What every device of the channel should run, by the status."""
    status = rollout.status
    candidate, reach = _offered(status)
    stable = status.stable.release if status.stable else None
    about = candidate or stable
    return ChannelDocument(
        channel=rollout.channel,
        attempt=status.attempt,
        salt=salt_of(rollout.channel, about.digest if about else ""),
        cohorts=_cohorts(reach),
        control=reach.control,
        stable=stable,
        candidate=candidate,
        withdrawing=candidate is not None and _is_withdrawn(status, candidate),
        denied=_denied(status, candidate, stable),
        poll_seconds=delivery.poll_seconds,
        active_poll_seconds=delivery.active_poll_seconds,
        backoff_seconds=delivery.backoff_seconds,
        candidate_lease_seconds=delivery.candidate_lease_seconds,
        frozen=delivery.frozen,
    )


def is_empty(status: EdgeRolloutStatus) -> bool:
    """Whether the status says nothing of the channel: new, restored or re-created, so that a signed document counts."""
    return status.attempt == 0 and status.stable is None and status.candidate is None and not status.quarantined


def is_behind(status: EdgeRolloutStatus, document: ChannelDocument) -> bool:
    """Whether a signed document tells of what status does not know yet: a document is made from status, so the status is a lost or an older one."""
    if document.attempt != status.attempt:
        return document.attempt > status.attempt
    candidate = status.candidate.release.digest if status.candidate else None
    if candidate is None or any(one.digest == candidate for one in status.quarantined):
        return False
    ended = (*document.denied, *(release.digest for release in (document.stable,) if release))
    return document.withdrawing or candidate in ended


def adopt(document: ChannelDocument, now: datetime, judged_by: str | None = None) -> EdgeRolloutStatus:
    """The status that a signed document tells of, its quarantine included.

    The step at work is not in it: `step_at_work` finds it. `judged_by` is what judges releases now: what judged them then is lost.
    """
    since, going_back = stamp(now), document.candidate if document.withdrawing else None
    denied = (*document.denied, going_back.digest) if going_back else document.denied
    return EdgeRolloutStatus(
        attempt=document.attempt,
        stable=_adopted(document.stable, since),
        candidate=_adopted(document.candidate, since),
        reach=_reach(document) if document.candidate else Reach(),
        rollback=RollbackStatus(digest=going_back.digest, reason=RolloutReason.ADOPTED, started_at=since, percent=0)
        if going_back
        else None,
        quarantined=tuple(
            Quarantine(digest=digest, reason=RolloutReason.ADOPTED, since=since, judged_by=judged_by)
            for digest in denied[-QUARANTINED:]
        ),
    )


def step_at_work(steps: Sequence[Step], reach: Reach, fleet: Fleet, salt: str) -> int | None:
    """The last step whose devices are all within a reach, from 0: the one to go on with; None when that is none."""
    at_work, built = None, Reach(control=reach.control)
    for index, step in enumerate(steps):
        if step.cohort is None:
            continue
        built = widen(built, step.cohort, fleet, salt).reach
        if not _is_within(built, reach):
            break
        at_work = index
    return at_work


def _offered(status: EdgeRolloutStatus) -> tuple[Release | None, Reach]:
    """The candidate and whom it is for; a rollback takes it from them, bit by bit or at once."""
    candidate, rollback = status.candidate, status.rollback
    if candidate is None:
        return None, Reach()
    if rollback is None or not _is_withdrawn(status, candidate.release):
        return candidate.release, status.reach
    left = Reach() if rollback.completed_at or rollback.percent == 100 else narrow(status.reach, rollback.percent)
    return (candidate.release, left) if left.cutoffs or left.named else (None, Reach())


def _is_withdrawn(status: EdgeRolloutStatus, release: Release) -> bool:
    return status.rollback is not None and status.rollback.digest == release.digest


def _denied(status: EdgeRolloutStatus, *releases: Release | None) -> tuple[str, ...]:
    """Quarantined releases, but for one that is still being withdrawn bit by bit, and never stable."""
    offered = {release.digest for release in releases if release}
    return tuple(one.digest for one in status.quarantined if one.digest not in offered)


def _cohorts(reach: Reach) -> tuple[Cohort, ...]:
    named = (Cohort(hashes=reach.named),) if reach.named else ()
    return named + tuple(Cohort(cutoff=one.cutoff, match_labels=one.match_labels) for one in reach.cutoffs)


def _reach(document: ChannelDocument) -> Reach:
    named = dict.fromkeys(hashed for cohort in document.cohorts for hashed in cohort.hashes)
    cutoffs = [
        Cutoff(cutoff=cohort.cutoff, match_labels=cohort.match_labels) for cohort in document.cohorts if cohort.cutoff
    ]
    return Reach(named=tuple(named), cutoffs=tuple(cutoffs), control=document.control)


def _adopted(release: Release | None, since: str) -> ReleaseStatus | None:
    return ReleaseStatus(name=release.digest[:12], release=release, since=since) if release else None


def _is_within(inner: Reach, outer: Reach) -> bool:
    if not set(inner.named) <= set(outer.named):
        return False
    return all(
        any(one.match_labels == other.match_labels and one.cutoff <= other.cutoff for other in outer.cutoffs)
        for one in inner.cutoffs
    )
