"""What a device does next, as a table of situations."""

import random
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dram_agent.document import Artifact, ChannelDocument, Cohort, Control, Release, Requirements
from dram_agent.slots import Held, Slot
from dram_agent.state import DeviceState, Failed, Why
from dram_agent.update import (
    CRASH_LIMIT,
    NOTHING,
    SOAK_SECONDS,
    Device,
    Step,
    View,
    decide,
    is_treated,
    wait_seconds,
)

NOW = 2_000_000_000.0
DAY = 86_400.0
A, B = Slot.A, Slot.B


def a_release(name: str, **needs: Any) -> Release:
    digest = name * 64
    requires = Requirements(**{"format": "gguf", "memory_bytes": 100, "agent_version": "1.2", **needs})
    return Release(digest=digest, artifacts=(Artifact(path=f"artifacts/{digest}/manifest.json", requires=requires),))


STABLE, CANDIDATE, NEXT = a_release("a"), a_release("b"), a_release("c")


def holding(release: Release) -> Held:
    return Held(release=release.digest, artifact=release.digest, model="model")


def a_document(**more: Any) -> ChannelDocument:
    fields = {
        "channel": "tv/bot",
        "attempt": 3,
        "salt": "aa",
        "cohorts": (Cohort(cutoff="f" * 16),),
        "stable": STABLE,
        "candidate": CANDIDATE,
        "poll_seconds": 300,
        "active_poll_seconds": 60,
        "backoff_seconds": 3600,
        "candidate_lease_seconds": int(DAY),
    }
    return ChannelDocument(**{**fields, **more})


def a_view(**more: Any) -> View:
    """A device on stable in slot A, in the cohort, that just polled."""
    fields: dict[str, Any] = {
        "device": Device(id="d", agent_version="1.2.3", memory_bytes=1000),
        "state": DeviceState(active=A, fresh_at=NOW),
        "held": {A: holding(STABLE)},
        "document": a_document(),
        "now": NOW,
        "healthy_since": NOW - 10,
    }
    return View(**{**fields, **more})


def on_candidate(**more: Any) -> View:
    return a_view(
        state=DeviceState(active=B, previous=A, fresh_at=NOW), held={A: holding(STABLE), B: holding(CANDIDATE)}, **more
    )


def brief(view: View) -> tuple[Any, ...]:
    decision = decide(view)
    return decision.step, decision.slot, decision.why


@pytest.mark.parametrize(
    ("situation", "view", "want"),
    [
        ("nothing is known", a_view(document=None), (Step.NOTHING, None, None)),
        ("a candidate is offered", a_view(), (Step.DOWNLOAD, B, None)),
        ("it is not for this device", a_view(document=a_document(cohorts=())), (Step.NOTHING, None, None)),
        ("it was downloaded", a_view(held={A: holding(STABLE), B: holding(CANDIDATE)}), (Step.TRY, B, None)),
        ("it is served", on_candidate(), (Step.NOTHING, None, None)),
        (
            "it was promoted",
            on_candidate(document=a_document(stable=CANDIDATE, candidate=None)),
            (Step.NOTHING, None, None),
        ),
        ("it is being withdrawn", a_view(document=a_document(withdrawing=True)), (Step.NOTHING, None, None)),
        (
            "it is being withdrawn elsewhere",
            on_candidate(document=a_document(withdrawing=True)),
            (Step.NOTHING, None, None),
        ),
        (
            "it is withdrawn here",
            on_candidate(document=a_document(withdrawing=True, cohorts=())),
            (Step.RETURN, A, Why.DENIED),
        ),
        (
            "it is withdrawn here while the installation is frozen",
            on_candidate(document=a_document(withdrawing=True, cohorts=(), frozen=True)),
            (Step.RETURN, A, Why.DENIED),
        ),
        (
            "it is withdrawn here after the last poll that came through",
            on_candidate(document=a_document(withdrawing=True, cohorts=()), is_fresh=False),
            (Step.RETURN, A, Why.DENIED),
        ),
        (
            "it is withdrawn, and the owner pins it",
            on_candidate(
                device=Device(id="d", agent_version="9", pin=CANDIDATE.digest),
                document=a_document(withdrawing=True, cohorts=()),
            ),
            (Step.NOTHING, None, None),
        ),
        ("it was aborted", on_candidate(document=a_document(candidate=None)), (Step.TRY, A, None)),
        ("it is denied", on_candidate(document=a_document(denied=(CANDIDATE.digest,))), (Step.RETURN, A, Why.DENIED)),
        (
            "it is denied, and stable is not here",
            a_view(
                state=DeviceState(active=B),
                held={B: holding(CANDIDATE)},
                document=a_document(denied=(CANDIDATE.digest,)),
            ),
            (Step.STOP, None, Why.DENIED),
        ),
        (
            "the next candidate comes while the slot of stable is the idle one",
            on_candidate(document=a_document(candidate=NEXT)),
            (Step.RETURN, A, None),
        ),
        (
            "the next candidate comes to a device on stable",
            a_view(held={A: holding(STABLE), B: holding(CANDIDATE)}, document=a_document(candidate=NEXT)),
            (Step.DOWNLOAD, B, None),
        ),
        ("a new device gets the candidate", a_view(state=DeviceState(), held={}), (Step.DOWNLOAD, A, None)),
        (
            "nothing is served, and stable lies in a slot",
            a_view(state=DeviceState(), held={A: holding(STABLE)}),
            (Step.DOWNLOAD, B, None),
        ),
        (
            "there is to be no local model",
            a_view(document=a_document(stable=None, candidate=None)),
            (Step.STOP, None, None),
        ),
        ("the owner says no", a_view(device=Device(id="d", veto=True)), (Step.NOTHING, None, None)),
        (
            "the owner says no, but it is denied",
            on_candidate(document=a_document(denied=(CANDIDATE.digest,)), device=Device(id="d", veto=True)),
            (Step.RETURN, A, Why.DENIED),
        ),
        ("the installation is frozen", a_view(document=a_document(frozen=True)), (Step.NOTHING, None, None)),
        (
            "frozen, but nothing runs yet",
            a_view(document=a_document(frozen=True), state=DeviceState(), held={}),
            (Step.DOWNLOAD, A, None),
        ),
        (
            "the owner pins stable",
            a_view(device=Device(id="d", agent_version="9", pin=STABLE.digest)),
            (Step.NOTHING, None, None),
        ),
        (
            "the owner pins the candidate outside of the cohort",
            a_view(device=Device(id="d", agent_version="9", pin=CANDIDATE.digest), document=a_document(cohorts=())),
            (Step.DOWNLOAD, B, None),
        ),
        (
            "a denied pin is worth nothing",
            a_view(
                device=Device(id="d", agent_version="9", pin=CANDIDATE.digest),
                document=a_document(cohorts=(), denied=(CANDIDATE.digest,)),
            ),
            (Step.NOTHING, None, None),
        ),
        ("metadata is not fresh", a_view(is_fresh=False), (Step.NOTHING, None, None)),
        (
            "metadata is not fresh and the slot is full",
            a_view(is_fresh=False, held={A: holding(STABLE), B: holding(CANDIDATE)}),
            (Step.NOTHING, None, None),
        ),
        (
            "it failed here in this attempt",
            a_view(state=DeviceState(active=A, failed=(Failed(release="b" * 64, attempt=3, why=Why.SMOKE),))),
            (Step.NOTHING, None, None),
        ),
        (
            "it failed here in an earlier attempt",
            a_view(state=DeviceState(active=A, failed=(Failed(release="b" * 64, attempt=2, why=Why.SMOKE),))),
            (Step.DOWNLOAD, B, None),
        ),
        (
            "a device that was away for months gets what is desired now",
            a_view(
                state=DeviceState(active=B, previous=A, fresh_at=NOW + 200 * DAY),
                held={A: holding(STABLE), B: holding(CANDIDATE)},
                now=NOW + 200 * DAY,
                document=a_document(stable=NEXT, candidate=None),
            ),
            (Step.DOWNLOAD, A, None),
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_device_does_next(situation: str, view: View, want: tuple[Any, ...]) -> None:
    assert brief(view) == want


@pytest.mark.parametrize(
    ("needs", "device", "want"),
    [
        ({"format": "safetensors"}, {}, Why.FORMAT),
        ({"memory_bytes": 1001}, {}, Why.MEMORY),
        ({"memory_bytes": 10**12}, {"memory_bytes": None}, None),
        ({"agent_version": "1.2.4"}, {}, Why.AGENT_VERSION),
        ({"agent_version": "1.10"}, {"agent_version": "1.9.9"}, Why.AGENT_VERSION),
        ({"agent_version": "1"}, {}, None),
    ],
)
def test_preconditions_are_checked_before_the_download(
    needs: dict[str, Any], device: dict[str, Any], want: Why | None
) -> None:
    owner = replace(Device(id="d", agent_version="1.2.3", memory_bytes=1000), **device)
    decision = decide(a_view(device=owner, document=a_document(candidate=a_release("b", **needs))))
    assert (decision.step is Step.REFUSE, decision.why) == (want is not None, want)


def test_a_release_without_a_build_for_the_class_is_refused() -> None:
    only_for_tv = a_release("b").artifacts[0].model_copy(update={"device_class": "tv"})
    document = a_document(candidate=Release(digest="b" * 64, artifacts=(only_for_tv,)))
    radio = Device(id="d", agent_version="9", device_class="radio")
    assert brief(a_view(device=radio, document=document)) == (Step.REFUSE, None, Why.DEVICE_CLASS)
    tv = replace(radio, device_class="tv")
    assert brief(a_view(device=tv, document=document)) == (Step.DOWNLOAD, B, None)


@pytest.mark.parametrize(
    ("away", "serves_candidate", "want"),
    [
        (DAY, True, NOTHING.step),
        (DAY + 1, True, Step.RETURN),
        (400 * DAY, False, NOTHING.step),
    ],
)
def test_a_candidate_lives_on_a_lease_and_stable_does_not(away: float, serves_candidate: bool, want: Step) -> None:
    view = on_candidate() if serves_candidate else a_view()
    decision = decide(replace(view, now=NOW + away, is_fresh=False))
    assert decision.step is want
    assert decision.why is (Why.LEASE if want is Step.RETURN else None)


def on_trial(**more: Any) -> View:
    state = DeviceState(active=B, previous=A, trial_since=NOW - 50, fresh_at=NOW, **more.pop("state", {}))
    return a_view(state=state, held={A: holding(STABLE), B: holding(CANDIDATE)}, **more)


@pytest.mark.parametrize(
    ("view", "want"),
    [
        (on_trial(healthy_since=NOW - SOAK_SECONDS), (Step.CONFIRM, None, None)),
        (on_trial(healthy_since=NOW - SOAK_SECONDS + 1), (Step.NOTHING, None, None)),
        (on_trial(healthy_since=None, state={"starts": CRASH_LIMIT}), (Step.RETURN, A, Why.CRASH_LOOP)),
        (on_trial(healthy_since=None, state={"starts": CRASH_LIMIT - 1}), (Step.NOTHING, None, None)),
        (on_trial(healthy_since=None, state={"starts": CRASH_LIMIT}, is_starting=True), (Step.NOTHING, None, None)),
        (
            on_trial(healthy_since=None, state={"starts": CRASH_LIMIT}, document=None),
            (Step.RETURN, A, Why.CRASH_LOOP),
        ),
        (
            on_trial(healthy_since=None, state={"starts": CRASH_LIMIT}, document=a_document(denied=(STABLE.digest,))),
            (Step.STOP, None, Why.CRASH_LOOP),
        ),
    ],
)
def test_a_trial_ends_well_or_where_it_came_from(view: View, want: tuple[Any, ...]) -> None:
    assert brief(view) == want


def test_a_device_that_fell_back_stays_treated() -> None:
    fell = DeviceState(active=A, failed=(Failed(release="b" * 64, attempt=3, why=Why.CRASH_LOOP),))
    assert is_treated(a_view(state=fell))
    assert not is_treated(a_view(document=a_document(control=Control(cutoff="0" * 16))))


@given(st.randoms(use_true_random=False), st.integers(0, 60))
def test_waits_spread_by_a_fifth_and_double_up_to_the_limit(dice: random.Random, failures: int) -> None:
    calm = replace(a_view(), document=a_document(cohorts=()))
    for view, base in ((calm, 300.0), (a_view(), 60.0)):
        nominal = min(3600.0, base * 2**failures)
        assert 0.8 * nominal <= wait_seconds(view, failures, None, dice) <= 1.2 * nominal


def test_waits_are_spread_evenly() -> None:
    dice = random.Random(1)
    waits = [wait_seconds(a_view(), 0, None, dice) for _ in range(2000)]
    assert min(waits) < 49
    assert max(waits) > 71
    assert abs(sum(waits) / len(waits) - 60) < 1


def test_what_the_server_asks_for_is_never_cut_short() -> None:
    dice = random.Random(1)
    waits = [wait_seconds(a_view(), 1, 900.0, dice) for _ in range(200)]
    assert min(waits) >= 900
    assert max(waits) <= 1080


@given(
    st.sampled_from([None, A, B]),
    st.dictionaries(st.sampled_from([A, B]), st.sampled_from([STABLE, CANDIDATE, NEXT]), max_size=2),
    st.sampled_from([None, STABLE, CANDIDATE, NEXT]),
    st.sampled_from([None, STABLE, CANDIDATE, NEXT]),
    st.sets(st.sampled_from([STABLE.digest, CANDIDATE.digest, NEXT.digest])),
    st.booleans(),
    st.booleans(),
)
def test_no_step_ever_endangers_what_is_served_or_stable(
    active: Slot | None,
    slots: dict[Slot, Release],
    stable: Release | None,
    candidate: Release | None,
    denied: set[str],
    veto: bool,
    frozen: bool,
) -> None:
    state = DeviceState(active=active if active in slots else None, fresh_at=NOW)
    document = a_document(stable=stable, candidate=candidate, denied=tuple(sorted(denied)), frozen=frozen)
    held = {slot: holding(release) for slot, release in slots.items()}
    decision = decide(
        a_view(state=state, held=held, document=document, device=Device("d", agent_version="9", veto=veto))
    )
    if decision.step is Step.DOWNLOAD:
        assert decision.slot is not None
        assert decision.slot is not state.active
        kept = stable.digest if stable and stable.digest not in denied else None
        holders = {slot for slot, each in held.items() if each.release == kept}
        assert not holders or holders - {decision.slot}
    if decision.step in (Step.TRY, Step.RETURN):
        assert decision.slot is not None
        assert held[decision.slot].release not in denied
        assert decision.slot is not state.active
    if decision.step is Step.NOTHING and state.active:
        assert held[state.active].release not in denied
