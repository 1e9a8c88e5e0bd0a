"""`dram agent` as a process of its own: a whole update with a real model, and the way it ends."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import urllib3
import yaml
from click.testing import CliRunner

from dram_agent.settings import SettingsInvalid, read_settings
from dram_operator.cli import main
from tests.agent.box import CHANNEL, DEVICE, Fleet

PATIENCE_SECONDS = 240.0
HELLO = {"messages": [{"role": "user", "content": "Hello"}], "max_tokens": 2}


class Running:
    """The agent's process."""

    def __init__(self, folder: Path, settings: dict[str, Any]) -> None:
        self.config = folder / "agent.yaml"
        self.config.write_text(yaml.safe_dump(settings))
        self.settings = settings
        self.log = folder / "agent.log"
        self.start()

    def start(self) -> None:
        self.began = self.log.stat().st_size if self.log.exists() else 0
        with self.log.open("ab") as log:
            command = [sys.executable, "-m", "dram_operator.cli", "agent", "--config", str(self.config)]
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def get(self, where: str, path: str) -> Any:
        try:
            return urllib3.request("GET", f"http://{self.settings[where]}{path}", retries=False, timeout=5)
        except urllib3.exceptions.HTTPError:
            return None

    def until_served(self, release: str | None) -> None:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while True:
            answer = self.get("listen", "/health")
            body = answer.json() if answer is not None else {}
            if release and (body.get("release"), body.get("servedBy")) == (release, "device"):
                return
            if release is None and body.get("release") == "none":
                return
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.1)

    def kill_at(self, said: str) -> None:
        """SIGKILL as soon as the log says this for the first time since the start."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while said not in self.log.read_text()[self.began :]:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < deadline, self.log.read_text()[-3000:]
            time.sleep(0.005)
        self.process.kill()
        self.process.wait()

    def end(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@pytest.fixture
def running(settings: dict[str, Any], tmp_path: Path) -> Iterator[Running]:
    agent = Running(tmp_path, settings)
    yield agent
    if agent.process.poll() is None:
        agent.process.kill()
        agent.process.wait()


def test_a_release_and_its_rollback_on_a_real_device(fleet: Fleet, running: Running, tiny_gguf: Path) -> None:
    body = tiny_gguf.read_bytes()
    stable, candidate = fleet.release(model=body, note=b"1"), fleet.release(model=body, note=b"2")
    quick: dict[str, Any] = {"poll_seconds": 1, "active_poll_seconds": 1, "backoff_seconds": 1}
    fleet.publish(stable, **quick)
    running.until_served(stable.digest)
    answer = urllib3.request("POST", f"http://{running.settings['listen']}/v1/chat/completions", json=HELLO)
    assert (answer.status, answer.json()["model"]) == (200, stable.digest)

    fleet.publish(stable, candidate, **quick)
    running.until_served(candidate.digest)
    text = running.get("metricsListen", "/metrics").data.decode()
    assert f'arm="treated",attempt="1",channel="{CHANNEL}",device="{DEVICE}"' in text
    assert f'dram_device_healthy{{channel="{CHANNEL}",device="{DEVICE}",release="{candidate.digest}"}} 1.0' in text

    running.process.kill()
    running.process.wait()
    running.start()
    running.until_served(candidate.digest)

    fleet.publish(stable, None, denied=(candidate.digest,), **quick)
    running.until_served(stable.digest)
    fleet.publish(None, None, denied=(candidate.digest,), **quick)
    running.until_served(None)
    assert running.end() == 0


@pytest.mark.long
def test_a_process_killed_in_any_transition_ends_as_one_that_was_not(
    fleet: Fleet, running: Running, tiny_gguf: Path
) -> None:
    """One SIGKILL in each: what was begun is gone on with or begun again, and what runs is what was signed."""
    bodies = {b"1": tiny_gguf.read_bytes(), b"2": tiny_gguf.read_bytes() + b"\0"}
    stable, candidate = (fleet.release(model=body, note=note) for note, body in bodies.items())
    good = dict(zip((stable.digest, candidate.digest), bodies.values(), strict=True))
    quick: dict[str, Any] = {"poll_seconds": 1, "active_poll_seconds": 1, "backoff_seconds": 1}
    story: tuple[tuple[dict[str, Any], tuple[str, ...], str | None], ...] = (
        ({"stable": stable}, ("Update: download", "Update: try", "passed with"), stable.digest),
        (
            {"stable": stable, "candidate": candidate},
            ("Update: download", "Update: try", "passed with"),
            candidate.digest,
        ),
        ({"stable": stable, "denied": (candidate.digest,)}, ("Update: return",), stable.digest),
        ({"denied": (candidate.digest, stable.digest)}, ("Update: stop",), None),
    )
    for document, transitions, want in story:
        fleet.publish(**document, **quick)
        for transition in transitions:
            running.kill_at(transition)
            check_files(running, good)
            running.start()
        running.until_served(want)
        check_files(running, good)
    state = json.loads((Path(running.settings["state"]) / "state.json").read_text())
    assert (state["active"], state["failed"], state["trialSince"]) == (None, [], None)
    held = [
        json.loads(mark.read_text())["release"] for mark in Path(running.settings["state"]).glob("slots/*/slot.json")
    ]
    assert sorted(held) == sorted(good)
    assert running.end() == 0


def check_files(running: Running, good: dict[str, bytes]) -> None:
    """A slot that counts holds what was signed; only such a slot is ever run."""
    for mark in Path(running.settings["state"]).glob("slots/*/slot.json"):
        assert (mark.parent / "model").read_bytes() == good[json.loads(mark.read_text())["release"]]


def test_a_second_agent_leaves_the_state_of_the_first_alone(running: Running, settings: dict[str, Any]) -> None:
    running.until_served(None)
    second = CliRunner().invoke(main, ["agent", "--config", str(running.config)])
    assert second.exit_code == 2
    assert f"state: another agent works in {settings['state']}" in second.output
    running.process.kill()
    running.process.wait()
    running.start()
    running.until_served(None)
    assert running.end() == 0


def test_a_folder_that_is_somebody_elses_is_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = tmp_path / "agent.yaml"
    path.write_text(yaml.safe_dump(settings))
    state = Path(settings["state"])
    state.mkdir(mode=0o500, parents=True)
    # Root without its capabilities is a user like others.
    drop = ["setpriv", "--bounding-set=-all", "--"] if os.geteuid() == 0 else []
    command = [*drop, sys.executable, "-m", "dram_operator.cli", "agent", "--config", str(path)]
    agent = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert agent.returncode == 2
    assert f"state: {state} cannot be written: give it to user {os.geteuid()}" in agent.stderr


def test_settings_that_are_wrong_are_named(tmp_path: Path, settings: dict[str, Any]) -> None:
    path = tmp_path / "agent.yaml"
    for change, message in (
        ({"channel": "no-slash"}, "channel"),
        ({"repository": "ftp://x"}, "repository"),
        ({"unknown": 1}, "unknown"),
        ({"root": str(tmp_path / "absent")}, "absent"),
        ({"state": str(path)}, f"state: {path} cannot be used: File exists"),
    ):
        path.write_text(yaml.safe_dump({**settings, **change}))
        result = CliRunner().invoke(main, ["agent", "--config", str(path)])
        assert result.exit_code == 2
        assert message in result.output
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        read_settings(tmp_path / "nothing.yaml")


def test_the_agent_brings_neither_torch_nor_kubernetes_nor_the_operator() -> None:
    code = "import sys, dram_agent.main, dram_agent.runtime; print(*{name.partition('.')[0] for name in sys.modules})"
    loaded = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={**os.environ}
    ).stdout.split()
    heavy = {"torch", "transformers", "kubernetes", "kopf", "dram_operator", "numpy", "xllamacpp"}
    assert set(loaded) & heavy == set()
