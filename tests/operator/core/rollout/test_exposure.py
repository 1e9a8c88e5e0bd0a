"""Which values of which windows a comparison takes in."""

from datetime import timedelta

import pytest

from dram_operator.core.rollout.answers import Answer, Trouble
from dram_operator.core.rollout.course import Course
from dram_operator.core.rollout.document import Delivery
from dram_operator.core.rollout.exposure import Windows
from dram_operator.core.rollout.observed import Measured
from dram_operator.core.rollout.sequential import Matching, Question, Reading, match
from dram_operator.core.rollout.verdicts import Exposure, readings_of
from dram_operator.core.times import parse_time
from tests.operator.core.rollout.large import COMPARED, Channel
from tests.operator.core.rollout.world import START, step, stepping

LENGTH = timedelta(seconds=300)
QUESTION = Question(alpha=0.05, treated_share=0.2, margin=0.01)


@pytest.fixture(scope="module")
def course() -> Course:
    """Two hours into a step whose devices took up the candidate one after another."""
    channel = Channel(300, stepping(step("20%", 7200), step("100%")).with_metric(**COMPARED))
    channel.go_on()
    for number, device in enumerate(channel.inventory.devices):
        channel.activated[device.id] = START + timedelta(seconds=90 * number)
    channel.now = START + timedelta(hours=2)
    return Course(channel.observe(), Delivery(), channel.now)


def measured_of(course: Course) -> Measured:
    return next(one for one in course.observed.measured if one.name == COMPARED["name"])


def everything(course: Course) -> list[Reading]:
    """What all devices showed in all windows that they ran their release throughout."""
    arms, start, found = course.arms(), parse_time(course.step.started_at), list[Reading]()
    control = {device: hashed for hashed, device in arms.control.items()}
    for number, answer in measured_of(course).windows:
        begun = start + number * LENGTH
        reports = ((hashed, device, course.report(device)) for hashed, device in arms.treated.items())
        treated = {
            device: hashed for hashed, device, one in reports if one and one.activated_at and one.activated_at <= begun
        }
        found += readings_of(answer, Exposure(number, treated, control), begun + LENGTH)[0]
    return found


def test_windows_that_are_not_unpacked_would_have_changed_nothing(course: Course) -> None:
    matching, whole = Matching(QUESTION), match(everything(course), QUESTION)
    trouble = Windows(course, course.arms(), 300).take_in(measured_of(course), matching)
    assert len(measured_of(course).windows) == 24
    assert 10 < len(whole.pairs) < len(course.arms().treated)
    assert (trouble, matching.scale, matching.pairs, matching.used) == (None, whole.scale, whole.pairs, whole.used)


def test_a_device_counts_in_windows_that_it_ran_the_candidate_throughout(course: Course) -> None:
    first = Measured("errors", course.now, windows=measured_of(course).windows[:1])
    matching = Matching(QUESTION)
    Windows(course, course.arms(), 300).take_in(first, matching)
    begun = parse_time(course.step.started_at)
    early = {
        hashed
        for hashed, device in course.arms().treated.items()
        if (one := course.report(device)) and one.activated_at and one.activated_at <= begun
    }
    assert matching.used & set(course.arms().treated) <= early


def test_the_newest_window_alone_says_whether_there_is_data(course: Course) -> None:
    *earlier, (number, newest) = measured_of(course).windows
    windows = Windows(course, course.arms(), 300)
    lost = Answer(trouble=Trouble.TIMED_OUT)
    for first, last, want in ((lost, newest, None), (earlier[0][1], lost, Trouble.TIMED_OUT)):
        told = Measured("errors", course.now, windows=((0, first), *earlier[1:], (number, last)))
        assert windows.take_in(told, Matching(QUESTION)) is want
