"""Which devices each window of a comparison counts, and what they showed in it."""

from collections.abc import Mapping
from datetime import datetime, timedelta

from dram_operator.core.rollout.answers import Answer, Trouble
from dram_operator.core.rollout.cohort import Arms
from dram_operator.core.rollout.course import Course
from dram_operator.core.rollout.observed import Measured
from dram_operator.core.rollout.sequential import Matching
from dram_operator.core.rollout.verdicts import Exposure, readings_of
from dram_operator.core.times import parse_time


class Windows:
    """The windows of one step: treated devices count in those that they ran the candidate throughout."""

    def __init__(self, course: Course, arms: Arms, length_seconds: int) -> None:
        self._course = course
        self._length = timedelta(seconds=length_seconds)
        self._treated = {device: hashed for hashed, device in arms.treated.items()}
        self._control = {device: hashed for hashed, device in arms.control.items()}
        self.control_values: dict[int, float] = {}
        """What each control device showed first, by its hash."""

    def take_in(self, measured: Measured, matching: Matching) -> Trouble | None:
        """Match what the windows show; returns what is wrong with the newest one, which is this look's.

        A day of windows with ten thousand devices each has to be affordable: one in which no treated device is left to match is not unpacked.
        """
        start, trouble = parse_time(self._course.step.started_at), None
        windows = sorted(measured.windows, key=lambda one: one[0])
        waiting: Mapping[str, int] = self._treated
        for number, answer in windows:
            begun = start + number * self._length
            waiting = {device: hashed for device, hashed in waiting.items() if hashed not in matching.used}
            exposed = {device: hashed for device, hashed in waiting.items() if self._was_exposed(device, begun)}
            if number == windows[-1][0]:
                # Whether the newest window has data does not depend on who was matched before.
                exposed = {
                    device: hashed for device, hashed in self._treated.items() if self._was_exposed(device, begun)
                }
            elif matching.scale and not _tells_of(answer, exposed):
                continue
            exposure = Exposure(number, exposed, self._control, self._course.spec.analysis.interval_seconds)
            readings, trouble = readings_of(answer, exposure, begun + self._length)
            for reading in readings:
                if not reading.treated:
                    self.control_values.setdefault(reading.device, reading.value)
            matching.add(readings)
        return trouble

    def _was_exposed(self, device: str, since: datetime) -> bool:
        report = self._course.report(device)
        return report is not None and report.activated_at is not None and report.activated_at <= since


def _tells_of(answer: Answer, devices: Mapping[str, int]) -> bool:
    return bool(devices) and any(sample.labels.get("device") in devices for sample in answer.samples)
