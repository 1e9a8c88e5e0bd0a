"""`dram fleet` from a user's seat: a process that tells for all of its devices until it is told to end."""

import signal
import subprocess
import sys
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path

import pytest
from click.testing import CliRunner

from dram_operator.cli.fleet import fleet

DEADLINE_SECONDS = 120.0


def options(folder: Path, port: int = 0) -> list[str]:
    (folder / "root.json").write_text("{}")
    (folder / "fleet.yaml").write_text("groups: [{name: all, count: 3, labels: {ring: early}}]")
    paths = [
        "--fleet",
        str(folder / "fleet.yaml"),
        "--root",
        str(folder / "root.json"),
        "--state",
        str(folder / "state"),
    ]
    nobody = "http://127.0.0.1:1"
    return [*paths, "--channel", "tv/support-bot", "--repository", nobody, "--listen", f"127.0.0.1:{port}"]


def test_it_tells_of_every_device_until_it_is_told_to_end(tmp_path: Path, unused_tcp_port: int) -> None:
    command = [sys.executable, "-m", "dram_operator.cli", "fleet", *options(tmp_path, unused_tcp_port)]
    process = subprocess.Popen(command)
    try:
        text = _metrics(unused_tcp_port, process)
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(60)
    info = [line for line in text.splitlines() if line.startswith("dram_device_info{")]
    assert code == 0
    assert len(info) == 3
    assert all('label_ring="early"' in line for line in info)


def _metrics(port: int, process: "subprocess.Popen[bytes]") -> str:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        connection = HTTPConnection("127.0.0.1", port, timeout=5)
        try:
            connection.request("GET", "/metrics")
            return connection.getresponse().read().decode()
        except (HTTPException, OSError):
            time.sleep(0.1)
        finally:
            connection.close()
    raise AssertionError("it does not tell")


@pytest.mark.parametrize(
    ("file", "text", "want"),
    [
        ("fleet.yaml", "groups: [{name: all, cuont: 3}]", "fleet.yaml:1: groups[0].cuont: unknown field: did you mean count?"),
        ("root.json", None, "root.json"),
    ],
)  # fmt: skip
def test_bad_input_is_told_and_is_exit_code_2(tmp_path: Path, file: str, text: str | None, want: str) -> None:
    arguments = options(tmp_path)
    (tmp_path / file).unlink()
    if text is not None:
        (tmp_path / file).write_text(text)
    result = CliRunner().invoke(fleet, arguments)
    assert (result.exit_code, want in result.stderr) == (2, True)
