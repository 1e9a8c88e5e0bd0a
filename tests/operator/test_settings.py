"""The operator's settings from its environment."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from dram_operator.api.pods import Resources
from dram_operator.core.installation import DEFAULT_RESOURCES
from dram_operator.errors import SettingsInvalid
from dram_operator.settings import Settings


def test_an_empty_environment_serves_all_namespaces() -> None:
    settings = Settings()
    assert settings.namespaces == ()
    assert settings.installation().storage is None
    assert settings.installation().default_resources == DEFAULT_RESOURCES
    assert settings.installation().progress_url is None


def test_the_environment_is_read_in_the_forms_of_the_chart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ca.crt").write_text("CERTIFICATE")
    for name, value in {
        "DRAM_NAMESPACES": "team-a, team-b",
        "DRAM_IMAGE": "registry.example.com/worker:1",
        "DRAM_CUDA_IMAGE": "registry.example.com/worker-cuda:1",
        "DRAM_IMAGE_PULL_SECRETS": "pull",
        "DRAM_WORKER_RESOURCES": json.dumps({"limits": {"memory": "16Gi"}}),
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
    assert (installation.image, installation.cuda_image) == (
        "registry.example.com/worker:1",
        "registry.example.com/worker-cuda:1",
    )
    assert installation.image_pull_secrets == ("pull",)
    assert installation.default_resources == Resources(limits={"memory": "16Gi"})
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


RELEASES = {
    "DRAM_RELEASES_URI": "s3://releases/dram",
    "DRAM_RELEASES_ROOT": "/etc/dram/root.json",
    "DRAM_RELEASES_OPERATOR_KEY": "/etc/dram/operator.pem",
}


class TestRollouts:
    def load(self, monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
        for name, value in {**RELEASES, **values}.items():
            monkeypatch.setenv(name, value)
        return Settings.load()

    def test_what_the_chart_writes_is_read(self, monkeypatch: pytest.MonkeyPatch) -> None:
        endpoint = {"name": "fleet", "url": "https://metrics:9090", "caFile": "/ca", "headerFiles": {"X-Key": "/key"}}
        values = {
            "DRAM_RELEASES_AWS_ACCESS_KEY_ID": "id",
            "DRAM_RELEASES_AWS_SECRET_ACCESS_KEY": "hush",
            "DRAM_PROMETHEUS": json.dumps([endpoint]),
            "DRAM_DELIVERY_POLL_SECONDS": "600",
            "DRAM_COMMANDS_VOUCHED": "true",
            "DRAM_FROZEN": "/etc/dram/switch/frozen",
        }
        settings = self.load(monkeypatch, **values)
        assert settings.prometheus[0].ca_file == Path("/ca")
        assert settings.prometheus[0].header_files == {"X-Key": Path("/key")}
        assert (settings.delivery(frozen=True).poll_seconds, settings.delivery(frozen=True).frozen) == (600, True)
        assert settings.commands_vouched
        assert "hush" not in repr(settings)

    def test_metrics_servers_may_stand_in_a_file(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        file = tmp_path / "prometheus.json"
        file.write_text('[{"url": "http://metrics:9090"}]')
        assert [one.name for one in self.load(monkeypatch, DRAM_PROMETHEUS=str(file)).prometheus] == ["default"]

    @pytest.mark.parametrize(
        ("variable", "value", "want"),
        [
            ("DRAM_RELEASES_URI", "https://bucket", "DRAM_RELEASES_URI is 'https://bucket'"),
            ("DRAM_RELEASES_AWS_ACCESS_KEY_ID", "id", "DRAM_RELEASES_AWS_SECRET_ACCESS_KEY go together"),
            ("DRAM_PROMETHEUS", "/absent.json", "DRAM_PROMETHEUS is '/absent.json': the file cannot be read"),
            ("DRAM_PROMETHEUS", "http://metrics", "DRAM_PROMETHEUS is 'http://metrics': it is not JSON"),
            ("DRAM_PROMETHEUS", '[{"url": "http://a"}, {"url": "http://b"}]', "DRAM_PROMETHEUS names 'default' twice"),
            ("DRAM_PROMETHEUS", '[{"address": "http://a"}]', "DRAM_PROMETHEUS 0 url: Field required"),
            ("DRAM_DELIVERY_POLL_SECONDS", "0", "DRAM_DELIVERY_POLL_SECONDS is '0': Input should be greater"),
            ("DRAM_LOG_LEVEL", "LOUD", "DRAM_LOG_LEVEL is 'LOUD'"),
        ],
    )
    def test_a_setting_that_cannot_be_is_named_with_its_value_and_a_remedy(
        self, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, want: str
    ) -> None:
        with pytest.raises(SettingsInvalid) as caught:
            self.load(monkeypatch, **{variable: value})
        assert want in str(caught.value)

    @pytest.mark.parametrize("missing", ["DRAM_RELEASES_ROOT", "DRAM_RELEASES_OPERATOR_KEY"])
    def test_a_repository_needs_root_and_key(self, monkeypatch: pytest.MonkeyPatch, missing: str) -> None:
        for name in RELEASES.keys() - {missing}:
            monkeypatch.setenv(name, RELEASES[name])
        with pytest.raises(SettingsInvalid, match=f"{missing} is not set although DRAM_RELEASES_URI is: mount"):
            Settings.load()

    def test_secrets_are_never_shown(self, monkeypatch: pytest.MonkeyPatch) -> None:
        headers = json.dumps([{"url": 7, "headers": {"Authorization": "hush"}}])
        with pytest.raises(SettingsInvalid) as caught:
            self.load(monkeypatch, DRAM_PROMETHEUS=headers)
        assert "hush" not in str(caught.value)
        with pytest.raises(SettingsInvalid) as caught:
            self.load(monkeypatch, DRAM_PROMETHEUS=headers[:-1])
        assert "hush" not in str(caught.value)


def test_an_operator_that_cannot_start_says_why_and_ends() -> None:
    program = "import sys; from dram_operator.app import main; sys.exit(main())"
    environment = {"DRAM_WORKERS": "0", "DRAM_RELEASES_URI": "s3://releases"}
    ended = subprocess.run(
        [sys.executable, "-c", program], env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "not started: DRAM_WORKERS is '0'" in ended.stderr
    assert "Traceback" not in ended.stderr
