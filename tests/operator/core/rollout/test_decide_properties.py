"""What must hold of `decide` however the world treats it: crashes, repetitions, two operators, old news."""

import random
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dram_operator.core.rollout.commands import Verb
from dram_operator.core.rollout.decide import decide
from dram_operator.core.rollout.observed import Observed
from tests.operator.core.rollout.world import (
    NEW,
    OLD,
    START,
    THIRD,
    Killed,
    World,
    at_step,
    bad_from,
    is_completed,
    is_rolled_back,
    step,
    stepping,
)

STEPS = stepping(step("10%"), "pause", step("100%"))


def forward() -> World:
    return World(manifest=STEPS)


def backward() -> World:
    return World(manifest=STEPS, figures=bad_from(START + timedelta(seconds=400)))


def approving(world: World) -> None:
    if at_step(1, "AwaitingApproval")(world) and not world.annotations:
        world.command(Verb.APPROVE)


def finished(world: World) -> World:
    """Run to the end, with a person who approves."""
    for _ in range(400):
        if is_rolled_back(world) or is_completed(world):
            break
        approving(world)
        world.run(30)
    return world.run(120)


def end_of(world: World) -> tuple[object, ...]:
    """What must not depend on what went wrong on the way."""
    releases = sorted(agent.runs for agent in world.agents)
    stable = world.status.stable.release.digest if world.status.stable else None
    held = [one.digest for one in world.status.quarantined]
    outcomes = [(record.attempt, record.digest, record.outcome, record.reason) for record in world.status.history]
    return releases, stable, held, outcomes, world.moves, world.status.attempt


STORIES = {"forward": forward, "backward": backward}
UNDISTURBED = {name: finished(story()) for name, story in STORIES.items()}


def test_the_stories_end_as_they_should() -> None:
    assert UNDISTURBED["forward"].running(NEW) == UNDISTURBED["backward"].running(OLD) == 40


@pytest.mark.parametrize("name", STORIES)
def test_a_crash_before_any_write_changes_neither_the_end_nor_the_releases(name: str) -> None:
    writes = UNDISTURBED[name].writes
    assert writes > 20
    for number in range(1, writes + 1):
        world = STORIES[name]()
        world.crash_at = number
        assert end_of(finished(world)) == end_of(UNDISTURBED[name]), f"killed before write {number}"


@pytest.mark.parametrize("name", STORIES)
def test_a_crash_of_half_a_minute_before_any_write_ends_in_the_same(name: str) -> None:
    for number in range(1, UNDISTURBED[name].writes + 1):
        world = STORIES[name]()
        world.crash_at = number
        late = _slow_to_return(world)
        assert end_of(finished(late))[:4] == end_of(UNDISTURBED[name])[:4], f"killed before write {number}"


def _slow_to_return(world: World) -> World:
    """A world in which a killed operator is away for a tick."""
    reconcile = world.reconcile

    def interrupted(observed: Observed | None = None) -> object:
        try:
            return reconcile(observed)
        except Killed:
            world.tick()
            return reconcile()

    world.reconcile = interrupted  # type: ignore[method-assign, assignment]
    return world


@pytest.mark.parametrize("name", STORIES)
def test_every_observation_repeated_changes_nothing(name: str) -> None:
    world = STORIES[name]()
    reconcile = world.reconcile

    def twice(observed: Observed | None = None) -> object:
        reconcile(observed)
        return reconcile(observed)

    world.reconcile = twice  # type: ignore[method-assign, assignment]
    finished(world)
    assert end_of(world) == end_of(UNDISTURBED[name])


@pytest.mark.parametrize("name", STORIES)
def test_once_decided_the_same_is_not_decided_again(name: str) -> None:
    world = STORIES[name]()
    for _ in range(60):
        approving(world)
        for _ in range(4):
            world.reconcile()
        observed = world.observe()
        again = decide(observed, world.delivery, world.now)
        assert (again.status, again.document, again.events) == (world.status, world.signed, ())
        world.tick()


@settings(max_examples=12, deadline=None)
@given(st.randoms(use_true_random=False), st.sampled_from(sorted(STORIES)))
def test_old_news_and_shuffled_looks_change_nothing(dice: random.Random, name: str) -> None:
    world = STORIES[name]()
    seen = list(world.measure())
    for _ in range(30):
        approving(world)
        observed = world.observe()
        seen += observed.measured
        looks = [*observed.measured, *dice.sample(seen, min(5, len(seen)))]
        dice.shuffle(looks)
        straight = decide(observed, world.delivery, world.now)
        assert decide(replace(observed, measured=tuple(looks)), world.delivery, world.now) == straight
        world.run(30)


def _pause(world: World) -> None:
    world.manifest = world.manifest.having("spec.paused", not world.rollout.spec.paused)


def _outage(world: World) -> None:
    world.telemetry = not world.telemetry


def _repository(world: World) -> None:
    world.repository_problem = "" if world.repository_problem else "away"


def _device_away(world: World) -> None:
    world.agents[3].away = not world.agents[3].away


def _device_refuses(world: World) -> None:
    world.agents[7].refuses = frozenset({NEW})


def _supersede(world: World) -> None:
    world.wanted = THIRD


def _abort(world: World) -> None:
    world.command(Verb.ABORT)


def _approve(world: World) -> None:
    world.command(Verb.APPROVE)


def _promote(world: World) -> None:
    world.command(Verb.PROMOTE)


def _turn_bad(world: World) -> None:
    world.figures = bad_from(world.now)


def _set_back_the_clock(world: World) -> None:
    world.now -= timedelta(hours=1)


HAPPENINGS: tuple[Callable[[World], None], ...] = (
    _pause,
    _outage,
    _repository,
    _device_away,
    _device_refuses,
    _supersede,
    _abort,
    _approve,
    _promote,
    _turn_bad,
    _set_back_the_clock,
)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(HAPPENINGS), st.integers(1, 12)), max_size=10))
def test_whatever_happens_the_promises_hold(story: list[tuple[Callable[[World], None], int]]) -> None:
    world, reached, attempt = forward(), set[str](), 0
    for happening, ticks in story:
        happening(world)
        for _ in range(ticks):
            before = world.status
            world.run(30)
            status = world.status
            assert status.attempt >= before.attempt
            held = {one.digest for one in before.quarantined}
            assert (
                status.candidate is None or status.rollback is not None or status.candidate.release.digest not in held
            )
            assert status.stable is not None
            assert status.stable.release.digest not in {one.digest for one in status.quarantined}
            assert len(status.model_dump_json()) < 64 << 10
            members = {agent.id for agent in world._members(world.signed)} if world.signed else set[str]()
            if (
                status.attempt == attempt
                and not world.repository_problem
                and status.rollback is None
                and status.candidate
            ):
                assert reached <= members
            reached, attempt = members, status.attempt
