"""The operator's settings from its environment."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from dram_operator.settings import Settings


def test_an_empty_environment_serves_all_namespaces() -> None:
    settings = Settings()
    assert settings.namespaces == ()
    assert settings.installation().storage is None
    assert settings.installation().progress_url is None


def test_the_environment_is_read_in_the_forms_of_the_chart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("CERTIFICATE")
    for name, value in {
        "DRAM_NAMESPACES": "team-a, team-b",
        "DRAM_IMAGE": "registry.example.com/worker:1",
        "DRAM_IMAGE_PULL_SECRETS": "pull",
        "DRAM_STORAGE": json.dumps({"uri": "s3://models/dram", "secretRef": {"name": "s3"}, "pathStyle": True}),
        "DRAM_PROGRESS_URL": "https://dram.svc:8443",
        "DRAM_PROGRESS_CERTIFICATE": "/tls/tls.crt",
        "DRAM_PROGRESS_CA": str(tmp_path / "ca.crt"),
        "POD_IP": "10.0.0.7",
    }.items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    installation = settings.installation()
    assert settings.namespaces == ("team-a", "team-b")
    assert settings.pod_ip == "10.0.0.7"
    assert installation.image_pull_secrets == ("pull",)
    assert installation.storage is not None
    assert installation.storage.path_style
    assert (installation.progress_url, installation.progress_ca) == ("https://dram.svc:8443", "CERTIFICATE")


def test_two_replicas_never_share_an_identity(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POD_NAME", "dram-operator-0")
    first, second = Settings().identity, Settings().identity
    assert first.startswith("dram-operator-0-")
    assert first != second


def test_a_value_out_of_range_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRAM_WORKERS", "0")
    with pytest.raises(ValidationError, match="workers"):
        Settings()
