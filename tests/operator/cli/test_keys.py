"""`dram keys` and `dram release`, as a person runs them."""

import logging
import re
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from dram_operator.cli import main
from tests.cluster.s3 import S3Server
from tests.operator.adapters.releases.installation import START, Device, Installation


@pytest.fixture
def run(s3_server: S3Server, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest):  # type: ignore[no-untyped-def]
    for name, value in s3_server.owner.environment().items():
        monkeypatch.setenv(name, value)
    bucket = f"{s3_server.bucket('keys-cli')}/{request.node.name[:40]}"
    keys = ["--keys", str(tmp_path / "keys")]
    repository = ["--repository", bucket, "--endpoint", s3_server.endpoint]

    def invoke(*arguments: str) -> Result:
        needs = repository if arguments[0] == "release" else [*keys, *repository]
        return CliRunner().invoke(main, [*arguments, *needs])

    return invoke


def test_a_repository_is_begun_rotated_and_recovered(run, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    for arguments in (
        ("keys", "init", "--root-keys", "1", "--threshold", "1"),
        *(("keys", "rotate", role) for role in ("operator", "release", "targets", "root")),
        ("keys", "recover", "--above", "50"),
    ):
        result = run(*arguments)
        assert result.exit_code == 0, result.output
    assert (tmp_path / "keys" / "root.json").read_bytes() == (tmp_path / "keys/roots/6.root.json").read_bytes()


def test_a_failure_is_one_line_and_exit_code_4(run) -> None:  # type: ignore[no-untyped-def]
    result = run("keys", "rotate", "root")
    assert result.exit_code == 4
    assert len(result.output.splitlines()) == 1


def test_no_private_key_is_ever_shown_or_logged(run, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:  # type: ignore[no-untyped-def]
    caplog.set_level(logging.DEBUG)
    shown = run("keys", "init").output + run("keys", "rotate", "operator").output
    broken = tmp_path / "keys" / "operator.pem"
    broken.write_text("-----BEGIN PRIVATE KEY-----\nc2VjcmV0LXNlY3JldA==\n-----END PRIVATE KEY-----\n")
    shown += run("keys", "rotate", "operator").output
    secrets = {
        line
        for file in (tmp_path / "keys").glob("*.pem")
        for line in file.read_text().splitlines()
        if re.fullmatch(r"[A-Za-z0-9+/=]{16,}", line)
    }
    assert len(secrets) == 7
    assert [secret for secret in secrets if secret in shown + caplog.text] == []


def test_an_artifact_is_signed_and_withdrawn(run, s3_server: S3Server, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    from datetime import UTC, datetime

    from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
    from dram_operator.adapters.releases.keys import KeyFolder

    assert run("keys", "init").exit_code == 0
    uri = f"{s3_server.bucket('keys-cli')}/test_an_artifact_is_signed_and_withdrawn"[: len("s3://keys-cli/") + 40]
    settings = BucketSettings(uri, s3_server.endpoint)
    installation = Installation(settings, KeyFolder(tmp_path / "keys"), bucket=Bucket(settings))
    assert installation.clock.now == START
    installation.clock.now = datetime.now(UTC)
    digest = installation.upload(model=b"weights")
    key = ("--key", str(tmp_path / "keys" / "release.pem"), "--root", str(tmp_path / "keys" / "root.json"))
    for flags, want in (((), b"weights"), (("--withdraw",), None)):
        result = run("release", "sign", f"sha256:{digest}", *key, *flags)
        assert result.exit_code == 0, result.output
        installation.repository().renew()
        assert Device(installation).read(f"artifacts/{digest}/model") == want
    refused = run("release", "sign", "0" * 64, *key)
    assert refused.exit_code == 4
