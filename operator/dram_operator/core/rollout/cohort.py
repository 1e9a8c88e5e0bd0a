"""From a step's words to the cut-off that is signed: which devices a step adds, exactly.

A device's salted hash is its place in a queue that is the same at every retry. A step takes the first k of the queue, where k is its share of the known
devices rounded up, and at least one device that no earlier step has; the cut-off is the hash of the last one taken. Beyond EXACT_DEVICES the cut-off is
that share of all hashes instead: it hits a share of the devices to within their random spread, and nobody has to list them.
"""

import hashlib
from bisect import bisect_left, bisect_right
from collections.abc import ItemsView, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

from dram_agent.cohort import device_hash, hash_hex
from dram_agent.document import Control
from dram_operator.api.rollout_spec import StepCohort
from dram_operator.api.rollout_status import CUTOFFS, NAMED, Cutoff, Reach
from dram_operator.core.rollout.inventory import Fleet

EXACT_DEVICES = 10_000
"""Up to so many known devices cohorts are counted."""
HASHES = 1 << 64
ALL = Fraction(1)


@dataclass(frozen=True)
class Widened:
    """What a step makes of the reach."""

    reach: Reach
    cutoff: str | None
    """The step's own cut-off; None where it only names devices, or there are none to take."""
    approximate: bool


@dataclass(frozen=True)
class Arms:
    """Devices by assignment, whatever they run: id by salted hash."""

    treated: dict[int, str]
    control: dict[int, str]
    """Devices that the step's selector means and that stay on stable."""


@dataclass(frozen=True)
class Sizes:
    """How many devices the arms of a step have."""

    treated: int
    control: int


def salt_of(channel: str, digest: str) -> str:
    """The salt of a release on a channel, in hex: kept on retry, so that a retry exposes the same devices."""
    return hashlib.sha256(f"{channel}\0{digest}".encode()).hexdigest()[:32]


def share_of(percent: str) -> Fraction:
    """A percentage of the spec as an exact share, e.g. `2.5%`."""
    return Fraction(percent.removesuffix("%")) / 100


def is_approximate(fleet: Fleet) -> bool:
    """Whether cut-offs are shares of all hashes: there are too many devices to count them exactly, or nobody has listed them."""
    return bool(fleet.groups) or fleet.known > EXACT_DEVICES


def hold_back(percent: str, fleet: Fleet) -> Control | None:
    """The control of an attempt: the last ones of the queue, rounded up, but never the only device."""
    share = share_of(percent)
    known = fleet.known
    if not share:
        return None
    if is_approximate(fleet):
        return Control(cutoff=hash_hex(HASHES - ceil(share * HASHES)))
    held = min(ceil(share * known), known - 1)
    return Control(cutoff=hash_hex(fleet.hashes[known - held])) if held > 0 else None


def widen(reach: Reach, cohort: StepCohort, fleet: Fleet, salt: str) -> Widened:
    """The reach after a step: all that earlier steps had, and the step's own devices.

    A spec stays within the bounds of a status; edits during an attempt may not, and what they add beyond is left out.
    """
    named = tuple(dict.fromkeys((*reach.named, *_named(cohort, salt))))[:NAMED]
    before = reach.model_copy(update={"named": named})
    if cohort.percent is None:
        return Widened(before, None, approximate=False)
    labels = dict(cohort.selector.match_labels) if cohort.selector else {}
    share, approximate = share_of(cohort.percent), is_approximate(fleet)
    if share == ALL:
        cutoff, approximate = HASHES - 1, bool(fleet.groups)
    elif approximate:
        cutoff = ceil(share * HASHES) - 1
    elif (counted := _counted(share, _not_held_back(fleet.matching(labels), before), fleet, before)) is not None:
        cutoff = counted
    else:
        return Widened(before, None, approximate=False)
    cutoff = max(cutoff, _cutoff_for(labels, before))
    others = tuple(one for one in before.cutoffs if one.match_labels != labels)
    if len(others) == CUTOFFS:
        return Widened(before, None, approximate=False)
    mine = Cutoff(cutoff=hash_hex(cutoff), match_labels=labels)
    return Widened(before.model_copy(update={"cutoffs": (*others, mine)}), mine.cutoff, approximate)


def narrow(reach: Reach, percent: int) -> Reach:
    """The reach after so many percent of all devices were sent back: those with the highest hashes go first.

    Devices that are named one by one go at once.
    """
    if not percent or not reach.cutoffs:
        return reach
    bound = max(int(one.cutoff, 16) for one in reach.cutoffs) - HASHES * percent // 100
    if bound < 0:
        return Reach(control=reach.control)
    lowered = tuple(one.model_copy(update={"cutoff": min(one.cutoff, hash_hex(bound))}) for one in reach.cutoffs)
    return Reach(cutoffs=lowered, control=reach.control)


def arms(reach: Reach, fleet: Fleet, selector: dict[str, str]) -> Arms:
    """The two arms of a step: every device that is meant, and those of the step's stratum that are not."""
    treated = set(members(reach, fleet))
    control = (hashed for hashed in fleet.matching(selector) if hashed not in treated)
    return Arms(_ids(fleet, treated), _ids(fleet, control))


def sizes(reach: Reach, fleet: Fleet, selector: dict[str, str]) -> Sizes:
    """How many devices are in the two arms of a step; of devices that are only counted, as many as their even spread says."""
    meant = set(members(reach, fleet))
    treated = Fraction(len(meant))
    control = Fraction(sum(hashed not in meant for hashed in fleet.matching(selector)))
    for group in fleet.groups:
        share = _share_meant(reach, group.labels)
        treated += share * group.count
        if selector.items() <= group.labels.items():
            control += (1 - share) * group.count
    if fleet.groups:
        # Nobody knows which devices are named: each is taken for one that the share has not reached.
        treated = min(treated + (1 - _share_meant(reach, {})) * len(reach.named), Fraction(fleet.known))
        control = min(control, fleet.known - treated)
    return Sizes(round(treated), round(control))


def offline(reach: Reach, fleet: Fleet, silent: int) -> int:
    """How many treated devices of a fleet that is only counted are offline: as large a part as of all others.

    Those that went silent with the candidate have failed: all of them are treated, and none of them is among the others.
    """
    everybody = sum(group.offline for group in fleet.groups)
    meant = sum((_share_meant(reach, group.labels) * group.offline for group in fleet.groups), Fraction())
    return round(meant * max(0, everybody - silent) / everybody) if everybody else 0


def _share_meant(reach: Reach, labels: Mapping[str, str]) -> Fraction:
    bounds = (int(one.cutoff, 16) + 1 for one in reach.cutoffs if one.match_labels.items() <= labels.items())
    return Fraction(min(max(bounds, default=0), _held_from(reach)), HASHES)


def members(reach: Reach, fleet: Fleet) -> Iterator[int]:
    """Hashes of the known devices that are meant to run the candidate, sorted."""
    named = {int(one, 16) for one in reach.named}
    cutoffs = [(int(one.cutoff, 16), one.match_labels.items()) for one in reach.cutoffs]
    held_from, everybody = _held_from(reach), max((cutoff for cutoff, labels in cutoffs if not labels), default=-1)
    certain = bisect_left(fleet.hashes, min(everybody + 1, held_from))
    yield from fleet.hashes[:certain]
    if not named and not any(labels for _, labels in cutoffs):
        return
    for hashed in fleet.hashes[certain:]:
        if hashed in named or (hashed < held_from and _below(cutoffs, hashed, fleet)):
            yield hashed


def percent_of(reach: Reach, fleet: Fleet) -> int:
    """Share of the known devices that is meant, in whole percent; 1 for anything, and 100 only for all."""
    meant = sizes(reach, fleet, {}).treated
    return 0 if not meant else max(1, 100 * meant // fleet.known)


def _named(cohort: StepCohort, salt: str) -> Iterator[str]:
    for name in cohort.device_ids:
        yield name if len(name) == 16 else hash_hex(device_hash(bytes.fromhex(salt), name))


def _counted(share: Fraction, stratum: Sequence[int], fleet: Fleet, reach: Reach) -> int | None:
    """The k-th smallest hash, or the first that is not reached yet where that is larger; None of nobody."""
    if not stratum:
        return None
    wanted = stratum[ceil(share * len(stratum)) - 1]
    return max(wanted, _first_new(stratum, fleet, reach) or 0)


def _first_new(stratum: Sequence[int], fleet: Fleet, reach: Reach) -> int | None:
    """The smallest hash of a stratum that no earlier step has, if any."""
    named = {int(one, 16) for one in reach.named}
    cutoffs = [(int(one.cutoff, 16), one.match_labels.items()) for one in reach.cutoffs]
    everybody = max((cutoff for cutoff, labels in cutoffs if not labels), default=-1)
    for index in range(bisect_right(stratum, everybody), len(stratum)):
        hashed = stratum[index]
        if hashed not in named and not _below(cutoffs, hashed, fleet):
            return hashed
    return None


def _below(cutoffs: Iterable[tuple[int, ItemsView[str, str]]], hashed: int, fleet: Fleet) -> bool:
    return any(
        hashed <= cutoff and (not labels or labels <= fleet.labels_of(hashed).items()) for cutoff, labels in cutoffs
    )


def _not_held_back(stratum: Sequence[int], reach: Reach) -> Sequence[int]:
    return stratum[: bisect_left(stratum, _held_from(reach))] if reach.control else stratum


def _held_from(reach: Reach) -> int:
    return int(reach.control.cutoff, 16) if reach.control else HASHES


def _cutoff_for(labels: dict[str, str], reach: Reach) -> int:
    return max((int(one.cutoff, 16) for one in reach.cutoffs if one.match_labels == labels), default=0)


def _ids(fleet: Fleet, hashes: Iterable[int]) -> dict[int, str]:
    return {hashed: fleet.devices[hashed].id for hashed in hashes}
