"""Progress reaches who asked for it, and never fails a stage."""

import json
import queue
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from dram_workers.progress import BODY_BYTES, PROGRESS_FILE, FileReporter, LoggingReporter, open_reporter
from dram_workers.results import Progress
from dram_workers.stages import STAGE_CONFIG, StageConfig
from tests.cluster.pki import Authority
from tests.workers.running import a_stage

PATIENCE_SECONDS = 30


@dataclass
class Receiver:
    """The operator's side: an HTTPS server that keeps what it is told."""

    url: str
    ca_file: Path
    token_file: Path
    received: "queue.Queue[tuple[str, Progress]]" = field(default_factory=queue.Queue)
    status: int = 204

    def settings(self, **changes: Any) -> dict[str, Any]:
        given = {
            "url": self.url,
            "tokenFile": str(self.token_file),
            "caFile": str(self.ca_file),
            "intervalSeconds": 0.01,
        }
        return {"progress": given | changes}

    def next(self) -> tuple[str, Progress]:
        return self.received.get(timeout=PATIENCE_SECONDS)


@pytest.fixture
def receiver(tmp_path: Path) -> Iterator[Receiver]:
    authority = Authority()
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    authority.server("operator", ("localhost", "127.0.0.1")).write(tmp_path, "server")
    (tmp_path / "token").write_text("first-token\n")

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            token = self.headers["Authorization"].removeprefix("Bearer ")
            told.received.put((token, Progress.model_validate_json(body)))
            self.send_response(told.status)
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the base's name
            """The test reads what was received."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    server.socket = context.wrap_socket(server.socket, server_side=True)
    told = Receiver(f"https://127.0.0.1:{server.server_address[1]}", tmp_path / "ca.crt", tmp_path / "token")
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield told
    server.shutdown()
    server.server_close()
    thread.join()


def a_config(tmp_path: Path, **execution: Any) -> StageConfig:
    identity = {"teacher": "hf://a/b", "golden": "s3://c/d"}
    return STAGE_CONFIG.validate_python(a_stage("resolve", identity, tmp_path, attempt=3, execution=execution))


def test_a_report_is_posted_with_the_token(receiver: Receiver, tmp_path: Path) -> None:
    with open_reporter(a_config(tmp_path, **receiver.settings())) as reporter:
        reporter.report(4, 120, {"loss": 2.5})
        token, progress = receiver.next()
    assert token == "first-token"
    assert progress == Progress(stage="resolve", attempt=3, step=4, total_steps=120, metrics={"loss": 2.5})


def test_a_renewed_token_is_used(receiver: Receiver, tmp_path: Path) -> None:
    with open_reporter(a_config(tmp_path, **receiver.settings())) as reporter:
        reporter.report(1, 2)
        assert receiver.next()[0] == "first-token"
        receiver.token_file.write_text("second-token")
        reporter.report(2, 2)
        assert receiver.next()[0] == "second-token"


def test_of_many_reports_in_an_interval_the_last_is_posted(receiver: Receiver, tmp_path: Path) -> None:
    with open_reporter(a_config(tmp_path, **receiver.settings(intervalSeconds=3600))) as reporter:
        reporter.report(1, 100)
        receiver.next()
        for step in range(2, 101):
            reporter.report(step, 100)
    assert receiver.next()[1].step == 100
    assert receiver.received.empty()


@pytest.mark.parametrize("status", [401, 500])
def test_a_refusal_is_logged_once_and_the_stage_goes_on(
    receiver: Receiver, tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int
) -> None:
    receiver.status = status
    with open_reporter(a_config(tmp_path, **receiver.settings())) as reporter:
        for step in (1, 2):
            reporter.report(step, 2)
            receiver.next()
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "first-token" not in caplog.text


@pytest.mark.parametrize(
    "changes", [{"url": "https://127.0.0.1:9"}, {"tokenFile": "/no/token"}, {"caFile": "/no/ca"}, {"url": "nonsense"}]
)
def test_no_failure_to_deliver_reaches_the_stage(receiver: Receiver, tmp_path: Path, changes: dict[str, str]) -> None:
    with open_reporter(a_config(tmp_path, **receiver.settings(**changes))) as reporter:
        reporter.report(1, 2)
    assert receiver.received.empty()


def test_an_untrusted_server_gets_no_token(receiver: Receiver, tmp_path: Path) -> None:
    receiver.ca_file.write_bytes(Authority().certificate)
    with open_reporter(a_config(tmp_path, **receiver.settings())) as reporter:
        reporter.report(1, 2)
    assert receiver.received.empty()


def test_too_many_figures_are_left_out(receiver: Receiver, tmp_path: Path) -> None:
    with open_reporter(a_config(tmp_path, **receiver.settings())) as reporter:
        reporter.report(1, 2, {f"figure-{number}": 1.0 for number in range(BODY_BYTES // 10)})
        assert receiver.next()[1].metrics == {}


def test_a_figure_that_is_no_number_is_left_out(receiver: Receiver, tmp_path: Path) -> None:
    with open_reporter(a_config(tmp_path, **receiver.settings())) as reporter:
        reporter.report(1, 2, {"loss": float("nan"), "rate": float("inf"), "alpha": 0.5})
        assert receiver.next()[1].metrics == {"alpha": 0.5}


def test_a_local_run_reads_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(PROGRESS_FILE, str(tmp_path / "progress.jsonl"))
    with open_reporter(a_config(tmp_path)) as reporter:
        assert isinstance(reporter, FileReporter)
        reporter.report(1, 2)
        reporter.report(2, 2, {"loss": 1.0})
    rows = [json.loads(line) for line in (tmp_path / "progress.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [1, 2]
    assert rows[1]["totalSteps"] == 2


def test_a_full_disk_loses_the_report_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv(PROGRESS_FILE, "/dev/full")
    with open_reporter(a_config(tmp_path)) as reporter:
        reporter.report(1, 2)
    assert "/dev/full" in caplog.text


def test_without_either_the_first_and_the_last_report_are_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv(PROGRESS_FILE, raising=False)
    caplog.set_level("INFO")
    with open_reporter(a_config(tmp_path)) as reporter:
        assert isinstance(reporter, LoggingReporter)
        for step in (1, 2, 3):
            reporter.report(step, 3)
    assert [record.getMessage() for record in caplog.records] == ["resolve step 1 of 3 ", "resolve step 3 of 3 "]
