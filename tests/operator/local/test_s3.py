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


def test_a_run_finds_and_leaves_everything_in_the_bucket(
    on_s3: TinyJob, finished: TinyJob, s3_server: S3Server
) -> None:
    storage = on_s3.job.spec["storage"]
    bucket, _, prefix = storage["uri"].removeprefix("s3://").partition("/")
    s3_server.upload(bucket, f"{prefix}/stages", finished.root / "stages")
    job = TinyJob(on_s3.folder, finished.job).having("spec.storage", storage)
    result = job.run()
    assert result.exit_code == 0, result.output
    assert {stage for stage, reason in job.reasons().items() if reason == "Completed"} == {"resolve", "publish"}
    folder = job.status()["variants"][0]["uri"].removeprefix(f"s3://{bucket}/")
    listed = s3_server.client().list_objects_v2(Bucket=bucket, Prefix=f"{folder}/")["Contents"]
    assert any(entry["Key"].endswith(".gguf") for entry in listed)
    assert (job.root / "report.html").exists()
    assert not (job.root / "stages").exists()


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
