"""Local runs whose store is a real S3 server."""

import pytest

from tests.cluster.processes import free_ports
from tests.cluster.s3 import Credentials, S3Server
from tests.operator.local.tiny import TinyJob


@pytest.fixture
def on_s3(tiny_job: TinyJob, s3_server: S3Server, monkeypatch: pytest.MonkeyPatch) -> TinyJob:
    """The tiny job with its results in a bucket, and the owner's credentials in the environment."""
    for name, value in s3_server.owner.environment().items():
        monkeypatch.setenv(name, value)
    s3_server.bucket("local-runs")
    storage = {"uri": f"s3://local-runs/{tiny_job.folder.parent.name}", "endpoint": s3_server.endpoint}
    return tiny_job.having("spec.storage", {**storage, "pathStyle": True})


def test_a_run_keeps_everything_in_the_bucket(on_s3: TinyJob, s3_server: S3Server) -> None:
    result = on_s3.having("spec.training.maxSteps", 1).run()
    assert result.exit_code == 0, result.output
    uri = on_s3.status()["variants"][0]["uri"]
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    listed = s3_server.client().list_objects_v2(Bucket=bucket, Prefix=f"{prefix}/")["Contents"]
    assert any(entry["Key"].endswith(".gguf") for entry in listed)
    assert (on_s3.root / "report.html").exists()
    assert not (on_s3.root / "stages").exists()


def test_wrong_credentials_are_told_at_once(on_s3: TinyJob, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in Credentials("nobody", "guessed").environment().items():
        monkeypatch.setenv(name, value)
    result = on_s3.run()
    assert result.exit_code == 4
    assert "✗ resolve: StorageDenied: spec.storage" in result.output


def test_a_missing_bucket_is_named(on_s3: TinyJob) -> None:
    result = on_s3.having("spec.storage.uri", "s3://not-there/dram").run()
    assert result.exit_code == 4
    assert "✗ resolve: StorageNotFound: spec.storage.uri" in result.output
    assert "not-there" in result.output


def test_an_endpoint_that_is_down_is_named(on_s3: TinyJob) -> None:
    endpoint = f"http://127.0.0.1:{free_ports(1)[0]}"
    result = on_s3.having("spec.storage.endpoint", endpoint).run()
    assert result.exit_code == 4
    assert "✗ resolve: StorageUnavailable: spec.storage.endpoint" in result.output
    assert endpoint in result.output
