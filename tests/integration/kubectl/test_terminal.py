"""What only a terminal shows: the live story, the question for a reason, and Ctrl-C."""

import os
import pty
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from tests.cluster.api import Api, wait_until
from tests.integration.kubectl.seat import NAMESPACE, WAITING, Clerk, Seat, place_job, place_rollout, set_status
from tests.operator.show.test_jobs import full, under_way

# A shell lets its jobs in the background ignore SIGINT, and so would what a test starts there.
PROGRAM = "import signal; signal.signal(signal.SIGINT, signal.default_int_handler); from dram_operator.cli import main; main()"


@dataclass
class Screen:
    """A process on a terminal of its own."""

    process: "subprocess.Popen[bytes]"
    terminal: int
    text: str = ""

    def wait_for(self, words: str) -> None:
        """Read until the words are there."""
        while words not in self.text:
            self.text += self._read() or pytest.fail(f"ended without {words!r}: {self.text}")

    def rest(self) -> str:
        """Everything until the process ends."""
        while more := self._read():
            self.text += more
        return self.text

    def type(self, text: str) -> None:
        """What a person types."""
        os.write(self.terminal, text.encode())

    def _read(self) -> str:
        try:
            return os.read(self.terminal, 65_536).decode(errors="replace")
        except OSError:  # the other end of a terminal is closed like this
            return ""


@pytest.fixture
def on_terminal() -> Callable[..., Screen]:
    """Runs `kubectl dram` on a terminal."""

    def run(seat: Seat, *arguments: str) -> Screen:
        mine, its = pty.openpty()
        command = [sys.executable, "-c", PROGRAM, *arguments, "--kubeconfig", str(seat.kubeconfig)]
        environment = {**os.environ, "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
        process = subprocess.Popen(command, stdin=its, stdout=its, stderr=its, env=environment, start_new_session=True)
        os.close(its)
        return Screen(process, mine)

    return run


def test_a_story_is_drawn_again_until_it_ends(
    api: Api, viewer: Seat, name: str, on_terminal: Callable[..., Screen]
) -> None:
    place_job(api, under_way(), name)
    screen = on_terminal(viewer, "watch", name)
    screen.wait_for("40 of 100, loss 1.250")
    ended = [one | {"status": "True", "reason": "Completed", "message": "All."} for one in full().status["conditions"]]
    set_status(api, "DistillationJob", name, {"conditions": ended})
    assert f"DistillationJob {NAMESPACE}/{name}: Completed: All." in screen.rest()
    assert screen.process.wait() == 0
    assert "\x1b[32m" in screen.text, "marks are green"


def test_ctrl_c_ends_a_watch_and_gives_the_cursor_back(
    api: Api, viewer: Seat, name: str, on_terminal: Callable[..., Screen]
) -> None:
    place_job(api, under_way(), name)
    screen = on_terminal(viewer, "watch", name)
    screen.wait_for("40 of 100, loss 1.250")
    os.killpg(screen.process.pid, signal.SIGINT)
    rest = screen.rest()
    assert (screen.process.wait(), "Traceback" in rest) == (130, False)
    assert rest.rindex("\x1b[?25h") > rest.rindex("\x1b[?25l"), "the cursor is shown again"


def test_a_person_is_asked_for_a_reason(
    api: Api, officer: Seat, clerk: Clerk, name: str, on_terminal: Callable[..., Screen]
) -> None:
    place_rollout(api, name, WAITING)
    screen = on_terminal(officer, "rollout", "abort", name)
    screen.wait_for("Reason, for the record")
    screen.type("kiosks are slow\n")
    screen.wait_for("Go on?")
    screen.type("y\n")
    assert "abort by olga" in screen.rest()
    assert screen.process.wait() == 0
    (record,) = wait_until(lambda: api.get("EdgeRollout", name, NAMESPACE)["status"].get("commands"), "the record")
    assert record["reason"] == "kiosks are slow"


@pytest.mark.parametrize(
    ("arguments", "want"),
    [(("status",), "“half” …"), (("get", "-o", "json"), "“half” …"), (("get", "--help"), "[JOB]…")],
)
def test_words_are_utf_8_whatever_the_locale(
    api: Api, viewer: Seat, name: str, arguments: tuple[str, ...], want: str
) -> None:
    place_job(api, under_way(), name)
    (first, *_) = full().status["conditions"]
    set_status(api, "DistillationJob", name, {"conditions": [first | {"message": "“half” …"}]})
    command = [sys.executable, "-m", "dram_operator.cli", *arguments, name, "--kubeconfig", str(viewer.kubeconfig)]
    done = subprocess.run(command, check=False, capture_output=True, env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert (done.returncode, want in done.stdout.decode()) == (0, True), done.stderr.decode()
