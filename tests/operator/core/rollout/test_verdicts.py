"""From a look to a verdict: nothing but a fresh, single, finite figure ever passes, and four kinds of looks are counted apart."""

from datetime import UTC, datetime, timedelta
from math import inf, nan

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dram_operator.core.rollout.answers import ERRORS, Answer, Sample, Trouble
from dram_operator.core.rollout.sequential import Comparison, Reading
from dram_operator.core.rollout.verdicts import (
    LARGEST_COUNT,
    Bounds,
    Exposure,
    Limits,
    MissingData,
    Outcome,
    Tally,
    Verdict,
    judge_bounds,
    judge_comparison,
    readings_of,
    rule,
    tallied,
)

NOW = datetime(2030, 5, 1, 12, tzinfo=UTC)
OLD = NOW - timedelta(seconds=181)


def one(value: float, newest: datetime | None = NOW, support: float | None = 500) -> Answer:
    return Answer((Sample({}, value),), newest=newest, support=support)


BOUNDS = {
    "max": Bounds(highest=0.3, min_samples=100),
    "min": Bounds(lowest=0.1, min_samples=100),
    "both": Bounds(highest=0.3, lowest=0.1, min_samples=100),
}
UNUSABLE = {
    "empty": Answer(newest=NOW, support=500),
    "NaN": one(nan),
    "+Inf": one(inf),
    "-Inf": one(-inf),
    "stale": one(0.2, newest=OLD),
    "absent behind a default": one(0.2, newest=None),
    "two series": Answer((Sample({"a": "1"}, 0.2), Sample({"a": "2"}, 0.2)), newest=NOW, support=500),
    **{trouble.value: Answer(trouble=trouble) for trouble in sorted(ERRORS)},
}
WANTED = {
    MissingData.WAIT: Verdict.WAIT,
    MissingData.PAUSE: Verdict.PAUSE,
    MissingData.FAIL: Verdict.ROLL_BACK,
}


@pytest.mark.parametrize("policy", MissingData)
@pytest.mark.parametrize("answer", UNUSABLE.values(), ids=UNUSABLE.keys())
@pytest.mark.parametrize("bounds", BOUNDS.values(), ids=BOUNDS.keys())
def test_what_is_no_figure_follows_missing_data_whatever_the_limits(
    bounds: Bounds, answer: Answer, policy: MissingData
) -> None:
    limits = Limits(failure_limit=2, error_limit=3, missing_data=policy)
    look = judge_bounds(answer, bounds, NOW)
    tally, latest = looked("PPPPP", limits)
    for number in range(1, 4):
        tally, latest = tallied(tally, look.outcome, limits, is_due=True), look.outcome
        assert rule(tally, latest, limits).verdict is not Verdict.GO
        if answer.trouble and number < limits.error_limit:
            assert rule(tally, latest, limits).verdict is Verdict.WAIT
    assert look.value is None
    want = Verdict.PAUSE if answer.trouble and policy is MissingData.WAIT else WANTED[policy]
    assert rule(tally, latest, limits).verdict is want


@given(st.sampled_from(sorted(UNUSABLE)), st.sampled_from(sorted(BOUNDS)), st.text("PBIEM", max_size=12))
def test_no_past_makes_a_look_without_a_figure_pass(kind: str, bounds: str, past: str) -> None:
    limits = Limits(failure_limit=3, error_limit=3)
    tally, _ = looked(past, limits)
    look = judge_bounds(UNUSABLE[kind], BOUNDS[bounds], NOW)
    for is_due in (True, False):
        told = rule(tallied(tally, look.outcome, limits, is_due=is_due), look.outcome, limits)
        assert told.verdict is not Verdict.GO


def looked(letters: str, limits: Limits, *, is_due: bool = True) -> tuple[Tally, Outcome]:
    """A metric after these looks."""
    outcomes = {outcome.letter: outcome for outcome in Outcome}
    tally, latest = Tally(), Outcome.MISSING
    for letter in letters:
        latest = outcomes[letter]
        tally = tallied(tally, latest, limits, is_due=is_due)
    return tally, latest


@pytest.mark.parametrize(
    ("bounds", "value", "want"),
    [
        ("max", 0.3, Outcome.PASS),
        ("max", 0.31, Outcome.BREACH),
        ("max", -5.0, Outcome.PASS),
        ("min", 0.1, Outcome.PASS),
        ("min", 0.09, Outcome.BREACH),
        ("both", 0.2, Outcome.PASS),
        ("both", 0.09, Outcome.BREACH),
        ("both", 0.31, Outcome.BREACH),
    ],
)
def test_limits_are_good_values(bounds: str, value: float, want: Outcome) -> None:
    assert judge_bounds(one(value), BOUNDS[bounds], NOW).outcome is want


@pytest.mark.parametrize("support", [99.9, 0, None, nan])
def test_too_few_samples_neither_pass_nor_breach(support: float | None) -> None:
    assert [judge_bounds(one(v, support=support), BOUNDS["max"], NOW).outcome for v in (0.2, 0.9)] == [
        Outcome.INCONCLUSIVE,
        Outcome.INCONCLUSIVE,
    ]


def test_a_sample_of_three_intervals_ago_is_fresh_still() -> None:
    fresh = one(0.2, newest=NOW - timedelta(seconds=180))
    assert judge_bounds(fresh, BOUNDS["max"], NOW).outcome is Outcome.PASS


class TestCounters:
    """Each kind of look has its own counter and its own limit."""

    limits = Limits(failure_limit=2, looks=5, inconclusive_limit=3, error_limit=4)

    @pytest.mark.parametrize(
        ("looks", "want"),
        [
            ("P", Verdict.GO),
            ("B", Verdict.WAIT),
            ("BP", Verdict.GO),
            ("BPB", Verdict.ROLL_BACK),
            ("BB", Verdict.ROLL_BACK),
            ("BPPPPB", Verdict.WAIT),
            ("BPPPPP", Verdict.GO),
            ("II", Verdict.WAIT),
            ("III", Verdict.PAUSE),
            ("IIPI", Verdict.WAIT),
            ("IIIP", Verdict.GO),
            ("EEE", Verdict.WAIT),
            ("EEEP", Verdict.GO),
            ("EEEE", Verdict.PAUSE),
            ("EEEEEEEEEE", Verdict.PAUSE),
            ("EEEEP", Verdict.GO),
            ("MMMMMMMMMM", Verdict.WAIT),
            ("EMIEMIEMI", Verdict.WAIT),
            ("BEB", Verdict.ROLL_BACK),
            ("", Verdict.WAIT),
        ],
    )
    def test_the_looks_so_far_decide(self, looks: str, want: Verdict) -> None:
        assert rule(*looked(looks, self.limits), self.limits).verdict is want

    @pytest.mark.parametrize(
        ("letter", "want"),
        [("B", (3, 0, 0, 0)), ("I", (0, 3, 0, 0)), ("E", (0, 0, 3, 0)), ("M", (0, 0, 0, 3)), ("P", (0, 0, 0, 0))],
    )
    def test_a_look_counts_in_one_counter_only(self, letter: str, want: tuple[int, int, int, int]) -> None:
        tally, _ = looked(letter * 3, self.limits)
        assert (tally.failed, tally.inconclusive, tally.errors, tally.missing) == want

    def test_an_outage_shorter_than_the_limit_changes_nothing_afterwards(self) -> None:
        strict = Limits(failure_limit=1, error_limit=4, missing_data=MissingData.FAIL)
        during = [rule(*looked("P" + "E" * n, strict), strict).verdict for n in range(1, 4)]
        assert during == [Verdict.WAIT] * 3
        assert rule(*looked("PEEEP", strict), strict).verdict is Verdict.GO
        assert rule(*looked("PEEEE", strict), strict).verdict is Verdict.ROLL_BACK

    def test_what_is_remembered_does_not_grow(self) -> None:
        tally, _ = looked("PBIEM" * 100, self.limits)
        assert len(tally.looks) == self.limits.looks
        full = Tally(errors=LARGEST_COUNT)
        assert tallied(full, Outcome.ERROR, self.limits, is_due=True).errors == LARGEST_COUNT


def test_before_a_figure_is_due_only_breaches_and_errors_count() -> None:
    limits = Limits(failure_limit=2, inconclusive_limit=2, error_limit=2, missing_data=MissingData.FAIL)
    assert rule(*looked("MMIIMM", limits, is_due=False), limits).verdict is Verdict.WAIT
    assert rule(*looked("PM", limits, is_due=False), limits).verdict is Verdict.WAIT
    assert rule(*looked("BMB", limits, is_due=False), limits).verdict is Verdict.ROLL_BACK
    assert rule(*looked("EE", limits, is_due=False), limits).verdict is Verdict.ROLL_BACK
    assert rule(*looked("EME", limits, is_due=False), limits).verdict is Verdict.WAIT


@pytest.mark.parametrize(
    ("breached", "passed", "trouble", "want"),
    [
        (True, False, None, Outcome.BREACH),
        (True, False, Trouble.TIMED_OUT, Outcome.BREACH),
        (False, True, None, Outcome.PASS),
        (False, True, Trouble.TIMED_OUT, Outcome.ERROR),
        (False, True, Trouble.STALE, Outcome.MISSING),
        (False, False, None, Outcome.INCONCLUSIVE),
    ],
)
def test_a_comparison_passes_only_with_data_and_stays_breached_without(
    breached: bool, passed: bool, trouble: Trouble | None, want: Outcome
) -> None:
    comparison = Comparison(0.01, 0.02, 40, breached=breached, passed=passed)
    assert judge_comparison(comparison, trouble).outcome is want


class TestReadings:
    """What devices showed in a window."""

    exposure = Exposure(3, treated={"a": 1, "b": 2}, control={"c": 30})

    def answer(self, *samples: tuple[str, float], **more: object) -> Answer:
        found = tuple(Sample({"device": name}, value) for name, value in samples)
        return Answer(found, **({"newest": NOW} | more))  # type: ignore[arg-type]

    def test_each_device_gives_its_figure_in_its_arm(self) -> None:
        found, trouble = readings_of(self.answer(("a", 0.1), ("c", 0.2), ("stranger", 9.0)), self.exposure, NOW)
        assert found == (Reading(1, True, 3, 0.1), Reading(30, False, 3, 0.2))
        assert trouble is None

    def test_a_device_without_a_number_shows_nothing(self) -> None:
        found, trouble = readings_of(self.answer(("a", nan), ("b", inf), ("c", 0.2)), self.exposure, NOW)
        assert [reading.device for reading in found] == [30]
        assert trouble is None

    @pytest.mark.parametrize(
        ("answer", "want"),
        [
            (Answer(newest=NOW), Trouble.EMPTY),
            (Answer(trouble=Trouble.MALFORMED), Trouble.MALFORMED),
            (Answer((Sample({"device": "a"}, nan),), newest=NOW), Trouble.EMPTY),
            (Answer((Sample({"device": "a"}, 0.1),), newest=OLD), Trouble.STALE),
            (Answer((Sample({"device": "a"}, 0.1), Sample({}, 0.1)), newest=NOW), Trouble.NO_DEVICE),
            (Answer((Sample({"device": "a"}, 0.1),) * 2, newest=NOW), Trouble.SEVERAL_SERIES),
        ],
    )
    def test_any_other_trouble_takes_the_window(self, answer: Answer, want: Trouble) -> None:
        assert readings_of(answer, self.exposure, NOW) == ((), want)
