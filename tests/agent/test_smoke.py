"""The smoke test on a real model, and the process around it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from dram_agent.local import LocalRuntime
from dram_agent.slots import Slot
from dram_agent.smoke import SmokeSettings
from dram_agent.state import Why
from dram_agent.telemetry import Identity, Telemetry
from tests.agent.serving import A_RELEASE, ARTIFACT, B_RELEASE, held, local_runtime, sample, until


def golden(tmp_path: Path, *items: dict[str, object]) -> Path:
    path = tmp_path / "golden.jsonl"
    path.write_text("".join(json.dumps({"id": f"{number}", **item}) + "\n" for number, item in enumerate(items)))
    return path


ANYTHING: dict[str, object] = {"prompt": "Hello", "regex": "^", "maxTokens": 2}
IMPOSSIBLE: dict[str, object] = {"prompt": "Hello", "exact": "no model says this", "maxTokens": 2}


@pytest.mark.parametrize(
    ("items", "settings", "want", "want_ratio"),
    [
        ([], {}, None, None),
        ([{"prompt": "Hello", "reference": "cannot be checked here"}], {}, None, None),
        ([ANYTHING, ANYTHING], {}, None, 1.0),
        ([ANYTHING, IMPOSSIBLE], {}, Why.SMOKE, None),
        ([ANYTHING, IMPOSSIBLE], {"least_ratio": 0.5}, None, 0.5),
        ([ANYTHING, ANYTHING, IMPOSSIBLE], {"items": 2}, None, 1.0),
        ([ANYTHING], {"memory_bytes": 1 << 20}, Why.MEMORY, None),
        ([ANYTHING], {"answer_seconds": 0.001}, Why.SMOKE, None),
    ],
)
def test_a_model_is_tried_before_it_is_served(
    tmp_path: Path,
    tiny_gguf: Path,
    items: list[dict[str, object]],
    settings: dict[str, float],
    want: Why | None,
    want_ratio: float | None,
) -> None:
    smoke = SmokeSettings(golden(tmp_path, *items) if items else None, **settings)  # type: ignore[arg-type]
    local = local_runtime(tmp_path / "device", tiny_gguf, smoke)
    try:
        assert local.test(Slot.A, held(A_RELEASE), ARTIFACT) is want
        if want is None:
            local.serve(Slot.A, held(A_RELEASE))
            until(lambda: local.healthy_since() is not None, local)
            assert sample(local, "dram_device_golden_pass_ratio", release=A_RELEASE) == want_ratio
    finally:
        local.close()


def rebooted(local: LocalRuntime) -> LocalRuntime:
    """The runtime of the next run over the same disk."""
    local.close()
    return LocalRuntime(local.slots, local.runtime, local.smoke, Telemetry(Identity("tv/bot", "device-1")), time.time)


def test_what_a_model_showed_is_told_after_a_reboot_too(tmp_path: Path, tiny_gguf: Path) -> None:
    smoke = SmokeSettings(golden(tmp_path, ANYTHING, IMPOSSIBLE), least_ratio=0.5)
    local = local_runtime(tmp_path / "device", tiny_gguf, smoke)
    assert local.test(Slot.A, held(A_RELEASE), ARTIFACT) is None
    told = []
    for slot, release in ((Slot.A, A_RELEASE), (Slot.B, B_RELEASE), (Slot.A, B_RELEASE), (Slot.A, A_RELEASE)):
        local = rebooted(local)
        local.serve(slot, held(release))
        told.append(sample(local, "dram_device_golden_pass_ratio", release=release))
    local.slots.disk.write("passed-a.json", b"{")
    local = rebooted(local)
    local.serve(Slot.A, held(A_RELEASE))
    told.append(sample(local, "dram_device_golden_pass_ratio"))
    local.close()
    assert told == [0.5, None, None, 0.5, None]


def test_a_test_whose_outcome_cannot_be_kept_waits_and_leaves_no_process(tmp_path: Path, tiny_gguf: Path) -> None:
    local = local_runtime(tmp_path / "device", tiny_gguf)
    local.slots.disk.make_folder("passed-a.json")
    before = _children(os.getpid())
    with pytest.raises(OSError, match="passed-a"):
        local.test(Slot.A, held(A_RELEASE), ARTIFACT)
    assert local._tested is None
    assert _children(os.getpid()) == before


def _children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_a_file_that_is_no_model_fails_and_leaves_no_process(tmp_path: Path) -> None:
    broken = tmp_path / "model.gguf"
    broken.write_bytes(b"GGUF" + bytes(100))
    local: LocalRuntime = local_runtime(tmp_path / "device", broken)
    assert local.test(Slot.A, held(A_RELEASE), ARTIFACT) is Why.SMOKE
    assert local._tested is None


def test_a_broken_golden_file_fails(tmp_path: Path, tiny_gguf: Path) -> None:
    path = tmp_path / "golden.jsonl"
    path.write_text("{")
    local = local_runtime(tmp_path / "device", tiny_gguf, SmokeSettings(path))
    assert local.test(Slot.A, held(A_RELEASE), ARTIFACT) is Why.SMOKE


def test_the_models_process_ends_when_the_agent_is_killed(tiny_gguf: Path) -> None:
    code = (
        "import sys, time; from pathlib import Path; from dram_agent.child import Child, RuntimeSettings\n"
        f"child = Child(Path({str(tiny_gguf)!r}), 'm', RuntimeSettings(256, 1, 1)); child.wait_ready()\n"
        "print(child.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as agent:
        assert agent.stdout is not None
        pid = int(agent.stdout.readline())
        agent.send_signal(signal.SIGKILL)
        agent.wait()
        until(lambda: not _runs(pid))


def _runs(pid: int) -> bool:
    """Whether it is there and no zombie, which nobody may be left to collect."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_the_runtime_refuses_to_outlive_a_parent_that_is_gone_already(tiny_gguf: Path) -> None:
    command = [sys.executable, "-m", "dram_agent.runtime", "--model", str(tiny_gguf), "--name", "m"]
    command += ["--context", "256", "--parallel", "1", "--threads", "1", "--parent", str(os.getpid() + 1)]
    assert subprocess.run(command, check=False).returncode == 1
