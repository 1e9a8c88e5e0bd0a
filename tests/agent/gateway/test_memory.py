"""What a gateway remembers of a device, on a clock of the test."""

import pytest

from dram_agent.gateway.memory import EARLIER_SESSIONS, Memory
from dram_agent.gateway.refusal import Reason, Refused
from dram_agent.gateway.settings import Limits

A, B = "a" * 32, "b" * 32


def outcome(memory: Memory, session: str, sequence: int, now: float, device: str = "d") -> Reason | None:
    try:
        memory.admit(device, session, sequence, now)
    except Refused as refused:
        return refused.reason
    return None


def test_pushes_come_at_a_pace_and_a_few_at_once_after_a_silence() -> None:
    memory = Memory(Limits(least_seconds=10, burst=2))
    said = [outcome(memory, A, number, now) for number, now in enumerate((0, 0, 0, 9, 10, 11, 1000, 1000, 1000))]
    late = Reason.TOO_OFTEN
    assert said == [None, None, late, late, None, late, None, None, late]
    with pytest.raises(Refused) as caught:
        memory.admit("d", A, 20, 1004)
    assert caught.value.retry_after == pytest.approx(6)


def test_a_flood_does_not_hide_a_second_session() -> None:
    memory = Memory(Limits(least_seconds=10, burst=1, conflict_seconds=100))
    assert outcome(memory, A, 1, 0) is None
    assert outcome(memory, B, 1, 1) is Reason.TOO_OFTEN
    assert outcome(memory, A, 2, 60) is Reason.CLONED


def test_a_conflict_ends_after_only_one_has_spoken_for_a_while() -> None:
    memory = Memory(Limits(conflict_seconds=100))
    said = [outcome(memory, *push) for push in ((A, 1, 0), (B, 1, 50), (A, 2, 100), (A, 3, 150), (A, 4, 200))]
    assert said == [None, None, Reason.CLONED, Reason.CLONED, None]
    assert outcome(memory, B, 2, 250) is Reason.CLONED


def test_only_so_many_sessions_are_remembered() -> None:
    """A device that crashes at every start is no clone, and fills no memory."""
    memory = Memory(Limits())
    for number in range(100):
        assert outcome(memory, f"{number:032x}", 1, number * 60) is None
    assert len(memory._known["d"].earlier) == EARLIER_SESSIONS


def test_a_device_that_is_silent_for_long_is_forgotten() -> None:
    memory = Memory(Limits(memory_seconds=60))
    for number in range(50):
        memory.admit(f"device-{number}", A, 1, number)
    assert len(memory) == 50
    memory.admit("late", A, 1, 100)
    assert len(memory) == 50 - 41 + 1


def test_requests_grow_no_faster_than_a_device_answers() -> None:
    memory = Memory(Limits(requests_per_second=2, least_seconds=5))
    memory.admit("d", A, 1, 0)
    memory.check("d", 1e6, set(), 0)
    for total, now, fits in ((1e6 + 130, 60, True), (1e6 + 261, 120, False), (1e6 + 261, 121, True), (5, 180, True)):
        if fits:
            memory.check("d", total, set(), now)
            continue
        with pytest.raises(Refused) as caught:
            memory.check("d", total, set(), now)
        assert caught.value.reason is Reason.IMPLAUSIBLE


def test_variants_are_bounded_for_as_long_as_they_are_remembered() -> None:
    memory = Memory(Limits(variants=3, memory_seconds=100))
    memory.admit("d", A, 1, 0)
    memory.check("d", 0, {1, 2}, 0)
    memory.check("d", 0, {2, 3}, 50)
    with pytest.raises(Refused) as caught:
        memory.check("d", 0, {4}, 60)
    assert caught.value.reason is Reason.TOO_MANY_SERIES
    memory.check("d", 0, {4}, 100)
