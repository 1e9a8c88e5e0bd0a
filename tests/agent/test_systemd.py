"""The service of examples/edge-agent on a real Debian under its own systemd: started, killed, without power, and held in its bounds."""

import json
import re
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import urllib3
import yaml

from tests.agent.box import Fleet
from tests.agent.machine import Machine
from tests.agent.test_main import HELLO, PATIENCE_SECONDS
from tests.cluster.folders import REPOSITORY

EXAMPLES = REPOSITORY / "examples/edge-agent"
HOW_TO = REPOSITORY / "docs/how-to/linux-device.md"
(SETUP,) = re.findall(r"^```sh\n(useradd .*?)^```$", HOW_TO.read_text(), re.MULTILINE | re.DOTALL)
UNIT = "dram-agent.service"
QUICK: dict[str, Any] = {"poll_seconds": 1, "active_poll_seconds": 1, "backoff_seconds": 1}
PROBE = Path(__file__).parent / "probe.py"

pytestmark = pytest.mark.long


class Device:
    """A machine with the service, installed as the how-to says."""

    def __init__(self, machine: Machine, settings: dict[str, Any]) -> None:
        self.machine, self.settings = machine, settings

    def show(self, name: str) -> str:
        """A property of the service."""
        return self.machine.run("systemctl", "show", "--value", "--property", name, UNIT).strip()

    def processes(self) -> list[psutil.Process]:
        """What runs under the service's user, seen from outside."""
        user = int(self.machine.run("id", "--user", "dram"))
        return [each for each in psutil.process_iter() if each.uids().real == user]

    def until(self, release: str) -> None:
        """Wait until this device itself answers with a release."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        while self._served() != (release, "device"):
            assert time.monotonic() < deadline, self.machine.run("journalctl", "--no-pager", "--unit", UNIT)[-3000:]
            time.sleep(0.1)

    def _served(self) -> tuple[str, str] | None:
        try:
            body = urllib3.request("GET", f"http://{self.settings['listen']}/health", retries=False, timeout=5).json()
        except urllib3.exceptions.HTTPError:
            return None
        return body.get("release"), body.get("servedBy")


@pytest.fixture
def machine() -> Iterator[Machine]:
    machine = Machine()
    try:
        machine.boot()
        yield machine
    finally:
        machine.remove()


@pytest.fixture
def device(machine: Machine, settings: dict[str, Any], tmp_path: Path) -> Device:
    """The example's files; only addresses, and what a small model needs, are this test's."""
    given = yaml.safe_load((EXAMPLES / "agent.yaml").read_text())
    here = {"repository", "listen", "metricsListen", "contextTokens", "threads"}
    absent = {"cloud", "push"}
    config = {name: value for name, value in given.items() if name not in absent}
    config |= {name: settings[name] for name in here}
    folder = machine.tree / "root"
    (folder / "agent.yaml").write_text(yaml.safe_dump(config))
    (folder / "token").touch()
    for file in (tmp_path / "root.json", tmp_path / "device-id", EXAMPLES / UNIT):
        shutil.copy(file, folder)
    machine.run("sh", "-e", "-c", f"cd /root\n{SETUP}")
    return Device(machine, config)


def test_the_service_serves_and_comes_back_whatever_ends_it(fleet: Fleet, device: Device, tiny_gguf: Path) -> None:
    stable = fleet.release(model=tiny_gguf.read_bytes())
    fleet.publish(stable, **QUICK)
    device.machine.run("systemctl", "enable", "--now", UNIT)
    device.until(stable.digest)
    answer = urllib3.request("POST", f"http://{device.settings['listen']}/v1/chat/completions", json=HELLO)
    assert (answer.status, answer.json()["model"]) == (200, stable.digest)

    before = {each.pid for each in device.processes()}
    device.machine.run("systemctl", "restart", UNIT)
    device.until(stable.digest)
    assert before.isdisjoint({each.pid for each in device.processes()})

    before = {each.pid for each in device.processes()}
    device.machine.run("systemctl", "kill", "--kill-whom", "main", "--signal", "KILL", UNIT)
    psutil.wait_procs([psutil.Process(pid) for pid in before if psutil.pid_exists(pid)])
    device.until(stable.digest)
    assert device.show("NRestarts") == "1"
    assert before.isdisjoint({each.pid for each in device.processes()}), "the model's process goes with the agent"

    device.machine.run("systemctl", "stop", UNIT)
    assert (device.show("Result"), device.processes()) == ("success", [])


def test_without_power_at_any_moment_it_comes_up_on_what_was_signed(
    fleet: Fleet, device: Device, tiny_gguf: Path
) -> None:
    body = tiny_gguf.read_bytes()
    stable, candidate = fleet.release(model=body, note=b"1"), fleet.release(model=body, note=b"2")
    fleet.publish(stable, **QUICK)
    device.machine.run("systemctl", "enable", "--now", UNIT)
    device.until(stable.digest)

    device.machine.cut_power()
    device.machine.boot()
    device.until(stable.digest)

    fleet.publish(stable, candidate, **QUICK)
    device.until(candidate.digest)
    device.machine.cut_power()
    fleet.publish(stable, None, denied=(candidate.digest,), **QUICK)
    device.machine.boot()
    device.until(stable.digest)


def test_the_service_can_do_nothing_else(device: Device) -> None:
    """A probe in the agent's place, under the same unit, tries what a stolen agent would try."""
    machine = device.machine
    shutil.copy(PROBE, machine.tree / "opt/probe.py")
    (machine.tree / "var/tmp/theirs").touch()
    machine.run("mknod", "--mode=666", "/dev/board", "c", "1", "7")
    machine.run("install", "--mode=4755", "/usr/bin/id", "/usr/local/bin/id")
    folder = machine.tree / "etc/systemd/system" / f"{UNIT}.d"
    folder.mkdir()
    command = "/opt/dram/bin/python /opt/probe.py"
    (folder / "probe.conf").write_text(f"[Service]\nType=oneshot\nRestart=no\nExecStart=\nExecStart={command}\n")
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", UNIT)
    told = json.loads((machine.tree / "var/lib/dram/probe.json").read_text())
    assert told == {name: name in {"write /var/lib/dram", "open a TCP socket"} for name in told}
    assert (machine.tree / "var/lib/dram/probe.json").stat().st_mode & 0o777 == 0o600


def test_systemd_finds_nothing_to_complain_about(device: Device) -> None:
    device.machine.run("systemd-analyze", "verify", "--man=no", f"/etc/systemd/system/{UNIT}")
    device.machine.run("systemd-analyze", "security", "--threshold=15", UNIT)
