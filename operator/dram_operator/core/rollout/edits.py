"""Which edits of a spec matter to what was decided by it."""

import json
from collections.abc import Sequence
from hashlib import sha256

from dram_operator.api.rollout_spec import EdgeRolloutSpec, Step
from dram_workers.model import Model

FINGERPRINT_DIGITS = 16


def judging(spec: EdgeRolloutSpec) -> str:
    """Fingerprint of what judges a release: the analysis and the strategy, but for the windows, which only say when."""
    return _fingerprint([_told(spec.analysis), _told(spec.strategy, without={"windows"})])


def leading_to(steps: Sequence[Step], index: int) -> str:
    """Fingerprint of the steps up to this one, as far as they say whose turn it is."""
    return _fingerprint([_told(step, without={"bake_seconds"}) for step in steps[: index + 1]])


def _told(part: Model, *, without: set[str] | None = None) -> dict[str, object]:
    """What differs from the defaults: a field that a later version adds changes no fingerprint."""
    return part.model_dump(mode="json", exclude_defaults=True, exclude=without)


def _fingerprint(value: object) -> str:
    return sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:FINGERPRINT_DIGITS]
