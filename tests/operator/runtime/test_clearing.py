"""What the daily clearing is told: everything that any rollout names or is about to name."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from dram_operator.errors import OperatorError
from dram_operator.runtime.clearing import EVERY_SECONDS, Clearing, digests_needed
from tests.builders import a_rollout
from tests.operator.adapters.releases.installation import Installation
from tests.operator.adapters.releases.test_desk import a_desk
from tests.operator.api.rollout_statuses import A_FULL_STATUS, FIFTH, SEVENTH, SIXTH

LATER = datetime.now(UTC) + timedelta(days=400)


class Stopped(Exception):
    """The test has seen enough."""


def a_clearing(installation: Installation, rollouts: Callable[[], list[Any]], shown: list[str]) -> Clearing:
    async def sleep(seconds: float) -> None:
        slept.append(seconds)
        if len(slept) > 2:
            raise Stopped

    slept: list[float] = []
    clearing = Clearing(a_desk(installation), installation.repository(), rollouts, lambda: shown, lambda: LATER, sleep)
    clearing.slept = slept  # type: ignore[attr-defined]
    return clearing


def test_a_rollout_needs_what_it_offers_may_go_back_to_and_is_about_to_offer() -> None:
    built = a_rollout().build().model_copy(update={"status": A_FULL_STATUS})
    assert {*digests_needed(built)} == {FIFTH, SIXTH, SEVENTH}
    by_uri = a_rollout().having("spec.artifact", {"uri": "s3://models/x", "sha256": "ee" * 32}).build()
    assert {*digests_needed(by_uri)} == {"ee" * 32}
    waiting = a_rollout().build().model_copy(update={"status": A_FULL_STATUS.model_copy(update={"candidate": None})})
    assert SEVENTH in {*digests_needed(waiting)}, "resolved, and on its way"


async def test_the_stable_and_the_previous_release_of_every_rollout_survive(installation: Installation) -> None:
    names = ("stable", "previous", "candidate", "shown", "gone")
    digests = {name: installation.upload(model=name.encode()) for name in names}
    installation.signer().sign([*digests.values()])
    installation.repository().renew()

    def status(name: str) -> dict[str, Any]:
        digest = digests[name]
        needs = {"format": "gguf", "memoryBytes": 1, "agentVersion": "0.1"}
        artifact = {"path": f"artifacts/{digest}/manifest.json", "requires": needs}
        return {
            "name": name,
            "since": "2030-01-01T00:00:00Z",
            "release": {"digest": digest, "artifacts": [artifact]},
        }

    rollouts = [
        a_rollout().having("status", {"stable": status("stable"), "previous": status("previous")}).manifest(),
        a_rollout().named("other").having("status", {"candidate": status("candidate")}).manifest(),
    ]
    cleared = await a_clearing(installation, lambda: rollouts, [digests["shown"]]).once()
    assert cleared.withdrawn == (digests["gone"],)
    assert a_desk(installation).signed() == {digests[name] for name in names} - {digests["gone"]}


async def test_a_rollout_that_cannot_be_read_stops_it_and_the_next_day_tries_again(
    installation: Installation, caplog: pytest.LogCaptureFixture
) -> None:
    digest = installation.upload(model=b"needed")
    days: list[list[Any]] = [[a_rollout().having("spec.strategy.steps", []).manifest()], []]
    clearing = a_clearing(installation, lambda: days.pop(0), [])
    with pytest.raises(Stopped):
        await clearing.run()
    assert clearing.slept == [EVERY_SECONDS] * 3  # type: ignore[attr-defined]
    assert "EdgeRollout tv/support-bot cannot be read" in caplog.text
    assert not any(digest in each.key for each in installation.bucket.list("targets/")), "the second day cleared"
    with pytest.raises(OperatorError, match="cannot be read"):
        await a_clearing(installation, lambda: [a_rollout().having("spec.paused", "x").manifest()], []).once()
