"""The progress endpoint with real tokens, real TLS and a real TokenReview."""

import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from dram_operator.core.jobs import PROGRESS_AUDIENCE
from dram_operator.runtime.cache import Key
from dram_workers.results import Progress
from tests.builders import a_job
from tests.cluster.api import Api, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.pki import Authority
from tests.integration.operator.conftest import NewNamespace
from tests.integration.operator.jobs import wait_for_stage
from tests.integration.operator.kubelet import WORKS, Kubelet
from tests.integration.operator.replica import Replica, Write

HOST = "dram-operator.dram-system.svc"


@dataclass
class Site:
    """A replica with a progress server, and two jobs whose training pods are running."""

    api: Api
    namespace: str
    leader: Replica
    standby: Replica
    authority: Path

    def pod(self, job: str, stage: str = "train") -> str:
        labels = f"dram.dev/job={job},dram.dev/stage={stage}"
        pods = self.api.list("Pod", self.namespace, labels=labels)
        return str(pods[0]["metadata"]["name"])

    def token(self, pod: str | None, audience: str = PROGRESS_AUDIENCE) -> str:
        """A token as the kubelet projects it into a pod, or one that belongs to no pod."""
        asked: dict[str, object] = {"audiences": [audience], "expirationSeconds": 3600}
        if pod:
            uid = self.api.get("Pod", pod, self.namespace)["metadata"]["uid"]
            asked["boundObjectRef"] = {"apiVersion": "v1", "kind": "Pod", "name": pod, "uid": uid}
        made = self.api.create_in("ServiceAccount", "default", self.namespace, "token", {"spec": asked})
        return str(made["status"]["token"])

    def post(self, token: str | None, body: bytes | None = None, replica: Replica | None = None) -> int:
        """Post a report; returns the HTTP status."""
        return post(replica or self.leader, token, self.authority, body if body is not None else a_report())

    def sample(self, name: str, job: str, **labels: str) -> float | None:
        labels = {"namespace": self.namespace, "name": job} | labels
        return self.leader.operator.metrics.registry.get_sample_value(name, labels)


def post(replica: Replica, token: str | None, authority: Path, body: bytes) -> int:
    """Post to a replica's progress endpoint; returns the HTTP status."""
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    url = f"https://127.0.0.1:{replica.operator.progress_port}/v1/progress"
    trust = ssl.create_default_context(cafile=str(authority))
    request = urllib.request.Request(url, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=30, context=trust) as answer:  # noqa: S310 -- https only
            return int(answer.status)
    except urllib.error.HTTPError as error:
        error.close()
        return error.code


def fetch(replica: Replica, path: str) -> tuple[int, str]:
    """Ask the plain listener of a replica."""
    url = f"http://127.0.0.1:{replica.operator.metrics_port}/{path}"
    with urllib.request.urlopen(url, timeout=30) as answer:
        return int(answer.status), answer.read().decode()


def a_report(step: int = 30, stage: str = "train", attempt: int = 1) -> bytes:
    metrics = {"loss": 1.5, "soft": 1.25, "tokens": 4096.0, "checkpointStep": 20.0}
    report = Progress(stage=stage, attempt=attempt, step=step, total_steps=120, metrics=metrics)
    return report.model_dump_json(by_alias=True).encode()


@pytest.fixture(scope="module")
def site(
    plane: ControlPlane, api: Api, new_namespace: NewNamespace, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Site]:
    folder, namespace = tmp_path_factory.mktemp("tls"), new_namespace()
    settings = progress_settings(folder) | {"lease_name": f"progress-{namespace}"}
    leader = Replica(plane.kubeconfig, (namespace,), settings=settings)
    standby = Replica(plane.kubeconfig, (namespace,), settings=settings)
    with Kubelet(api, lambda stage, _: None if stage == "train" else WORKS), leader:
        wait_until(lambda: leader.operator.leads, "a leader")
        with standby:
            for name in ("bot", "other"):
                api.create(a_job().named(name, namespace).manifest())
            site = Site(api, namespace, leader, standby, folder / "ca.crt")
            wait_until(lambda: _train(api, namespace) == ["Running", "Running"], "both training pods to run")
            for name in ("bot", "other"):
                wait_for_stage(api, namespace, name, "train", "Running")
            wait_until(standby.operator._is_ready, "the standby to know the leader")
            yield site


def test_a_training_pod_reports_and_status_tells(site: Site) -> None:
    assert site.post(site.token(site.pod("bot"))) == 204
    status = wait_until(lambda: _progress(site, "bot", 30), "the progress to reach status")
    assert (status["progress"]["totalSteps"], status["progress"]["loss"]) == (120, 1.5)
    assert status["checkpoint"]["step"] == 20
    assert site.sample("dram_job_loss", "bot", term="soft") == 1.25
    assert site.sample("dram_job_tokens_total", "bot") == 4096.0
    ratio = site.sample("dram_job_progress_ratio", "bot")
    assert ratio is not None
    assert 0 < ratio < 1


def test_many_reports_are_one_status_write(site: Site) -> None:
    token = site.token(site.pod("other"))
    assert site.post(token) == 204
    wait_until(lambda: _progress(site, "other", 30), "the first report to reach status")
    before = wait_until(lambda: _written(site, "other", 30), "the write to be known here")
    for step in range(31, 61):
        assert site.post(token, a_report(step)) == 204
    wait_until(lambda: _progress(site, "other", 60), "the last report to reach status")
    after = wait_until(lambda: _written(site, "other", 60), "the write to be known here")
    assert len(after) == len(before) + 1


def test_a_standby_passes_reports_on(site: Site) -> None:
    assert site.post(site.token(site.pod("bot")), a_report(77), site.standby) == 204
    assert site.leader.operator.board.latest(_key(site, "bot")).step == 77  # type: ignore[union-attr]
    assert site.standby.operator.board.latest(_key(site, "bot")) is None
    assert site.post(site.token(site.pod("bot"), "another"), a_report(), site.standby) == 401


def test_probes_and_metrics_answer_on_leader_and_standby(site: Site) -> None:
    for replica, leads in ((site.leader, "1.0"), (site.standby, "0.0")):
        assert [fetch(replica, path)[0] for path in ("healthz", "readyz")] == [200, 200]
        status, text = fetch(replica, "metrics")
        assert (status, f"dram_operator_leader {leads}" in text) == (200, True)
        assert ('name="bot"' in text) == (leads == "1.0"), "a standby has no series of jobs"


@pytest.mark.parametrize(
    ("told", "want"),
    [
        (a_report(stage="data"), 403),
        (a_report(attempt=2), 403),
        (b"{}", 400),
        (b"not json", 400),
        (b" " * (64 * 1024) + a_report(), 413),
    ],
    ids=["another stage", "another attempt", "no report", "no JSON", "too large"],
)
def test_a_report_that_is_not_the_pods_own_is_refused(site: Site, told: bytes, want: int) -> None:
    assert site.post(site.token(site.pod("bot")), told) == want


def test_a_stranger_is_refused(site: Site) -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "stranger", "namespace": site.namespace}}
    labels = {"dram.dev/job": "bot", "dram.dev/stage": "train", "dram.dev/attempt": "1"}
    pod["metadata"] |= {"labels": labels}  # type: ignore[operator]
    site.api.create(pod | {"spec": {"containers": [{"name": "worker", "image": "x"}]}})
    assert site.post(None) == 401
    assert site.post("made up") == 401
    assert site.post(site.token(None)) == 401, "a token of no pod"
    assert site.post(site.token(site.pod("bot"), "https://kubernetes.default.svc")) == 401, (
        "a token for another audience"
    )
    assert site.post(site.token("stranger")) == 403, "a pod with the labels, but not made by the job's Job"


def test_a_finished_stages_token_reports_nothing(site: Site) -> None:
    resolved = site.pod("bot", "resolve")
    assert site.post(site.token(resolved)) == 403, "the pod of resolve may not speak for train"


def progress_settings(folder: Path) -> dict[str, object]:
    authority = Authority()
    authority.server("progress", (HOST, "127.0.0.1")).write(folder, "server")
    (folder / "ca.crt").write_bytes(authority.certificate)
    return {
        "progress_url": f"https://{HOST}:8443",
        "progress_port": 0,
        "progress_certificate": folder / "server.crt",
        "progress_key": folder / "server.key",
        "progress_ca": folder / "ca.crt",
    }


def _train(api: Api, namespace: str) -> list[str]:
    return [pod["status"]["phase"] for pod in api.list("Pod", namespace, labels="dram.dev/stage=train")]


def _progress(site: Site, job: str, step: int) -> dict[str, dict[str, object]] | None:
    status = site.api.get("DistillationJob", job, site.namespace)["status"]
    return status if status["progress"]["step"] == step else None


def _written(site: Site, job: str, step: int) -> list[Write] | None:
    """Status writes of a job, once that of a step is among them: the server has it before its answer is here."""
    writes = [write for write in site.leader.writes if write.is_status and f"/{job}/" in write.path]
    steps = [write.answer["status"].get("progress", {}).get("step") for write in writes]
    return writes if step in steps else None


def _key(site: Site, job: str) -> Key:
    return Key(site.namespace, job)
