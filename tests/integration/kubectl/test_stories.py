"""Looking: lists, stories, watches, errors, reports and completion, at a real API server."""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from dram_operator.adapters.resources import DISTILLATION_JOBS
from dram_operator.cli import completion, jobs, main
from tests.builders import a_job
from tests.cluster.api import Api, wait_until
from tests.cluster.controlplane import ControlPlane
from tests.cluster.s3 import S3Server
from tests.integration.kubectl.seat import NAMESPACE, RESTING, WAITING, Seat, place_job, place_rollout, set_status
from tests.operator.show.test_jobs import full, under_way

OnceWatched = Callable[[str, Callable[[], object]], AbstractContextManager[None]]


@contextmanager
def watched(log: Path, name: str, change: Callable[[], object]) -> Iterator[None]:
    asked = f"fieldSelector=metadata.name%3D{name}"

    def work() -> None:
        wait_until(lambda: asked in log.read_text(), f"a watch of {name}")
        change()

    thread = threading.Thread(target=work)
    thread.start()
    yield
    thread.join()


@pytest.fixture
def once_watched(control_plane: ControlPlane) -> OnceWatched:
    """Does something as soon as an object is being watched."""
    return partial(watched, control_plane.audit_log)


def test_the_list_shows_jobs_and_names_choose(api: Api, viewer: Seat, name: str) -> None:
    place_job(api, under_way(), name)
    every = viewer.dram("get")
    assert every.exit_code == 0
    (line,) = (line for line in every.output.splitlines() if line.split()[0] == name)
    assert line.split()[1:3] == ["Running", "train"]
    assert viewer.dram("get", name).output.splitlines()[1:] == [line]
    listed = json.loads(viewer.dram("get", name, "-o", "json").output)
    assert [(one["kind"], one["metadata"]["name"]) for one in listed["items"]] == [("DistillationJob", name)]


def test_all_namespaces_need_more_than_a_role_in_one(
    viewer: Seat, control_plane: ControlPlane, api: Api, name: str
) -> None:
    place_job(api, under_way(), name)
    refused = viewer.dram("get", "-A")
    assert (refused.exit_code, "you may not list distillationjobs in all namespaces" in refused.output) == (4, True)
    admin = Seat("admin", control_plane.kubeconfig).dram("get", "-A")
    assert f"{NAMESPACE} {name}" in " ".join(admin.output.split())


def test_a_name_is_not_looked_for_in_all_namespaces(viewer: Seat) -> None:
    result = viewer.dram("get", "-A", "any")
    assert (result.exit_code, "name it with -n instead of -A" in result.output) == (2, True)


def test_an_empty_namespace_says_so(control_plane: ControlPlane, api: Api) -> None:
    result = Seat("admin", control_plane.kubeconfig).dram("get", "-n", "kube-public")
    assert (result.exit_code, result.output) == (0, "There is no DistillationJob in namespace kube-public.\n")


@pytest.mark.parametrize("form", ["json", "yaml"])
def test_programs_get_the_object_as_it_is(api: Api, viewer: Seat, name: str, form: str) -> None:
    place_rollout(api, name, WAITING)
    read = json.loads if form == "json" else yaml.safe_load
    shown = read(viewer.dram("rollout", "status", name, "-o", form).output)
    stored = api.get("EdgeRollout", name, NAMESPACE)
    stored["metadata"].pop("managedFields")
    assert shown == stored


def test_stories_of_both_kinds(api: Api, viewer: Seat, name: str) -> None:
    place_job(api, under_way(), name)
    place_rollout(api, name, WAITING)
    job, rollout = viewer.dram("status", name).output, viewer.dram("rollout", "status", name).output
    assert job.startswith(f"… DistillationJob {NAMESPACE}/{name}: Running: At work.\n")
    assert "… train  ━━━━━━━━╌╌╌╌╌╌╌╌╌╌╌╌ 40 of 100, loss 1.250, about 0:01:30 left" in job
    assert f"EdgeRollout {NAMESPACE}/{name}: Baking" in rollout
    assert "? 2  100%: waits for approval" in rollout


@pytest.mark.parametrize(
    ("truth", "reason", "code"), [("True", "Completed", 0), ("False", "GateFailed", 3), ("False", "OutOfMemory", 4)]
)
def test_a_watched_job_tells_its_changes_and_ends_with_it(
    api: Api, viewer: Seat, name: str, once_watched: OnceWatched, truth: str, reason: str, code: int
) -> None:
    place_job(api, under_way(), name)
    ended = [one | {"status": truth, "reason": reason, "message": "The end."} for one in full().status["conditions"]]
    stages = [one | {"state": "Succeeded"} for one in under_way().status["stages"]]

    with once_watched(name, lambda: set_status(api, "DistillationJob", name, {"conditions": ended, "stages": stages})):
        result = viewer.dram("watch", name)

    assert result.exit_code == code
    lines = result.output.splitlines()
    assert lines[:4] == [
        "✓ resolve (3 s)",
        "✓ teach (cached)",
        "… train",
        f"… DistillationJob {NAMESPACE}/{name}: Running: At work.",
    ]
    assert lines[4:] == [
        "✓ train (0 s)",
        "✓ export-q8 (0 s)",
        f"{'✓' if code == 0 else '✗'} DistillationJob {NAMESPACE}/{name}: {reason}: The end.",
    ]


def test_an_end_of_an_earlier_generation_is_no_end(
    api: Api, viewer: Seat, name: str, once_watched: OnceWatched
) -> None:
    ended = [one | {"status": "True", "reason": "Completed"} for one in full().status["conditions"]]
    place_job(api, full().having("status.conditions", ended).having("status.observedGeneration", 0), name)
    with once_watched(name, lambda: set_status(api, "DistillationJob", name, {"observedGeneration": 1})):
        seen = viewer.dram("watch", name, "-o", "json")
    assert seen.exit_code == 0
    generations = [json.loads(line)["status"]["observedGeneration"] for line in seen.output.splitlines()]
    assert generations == [0, 1]


def test_what_is_deleted_while_it_is_watched_is_a_failure(
    api: Api, viewer: Seat, name: str, once_watched: OnceWatched
) -> None:
    place_job(api, under_way(), name)
    with once_watched(name, lambda: api.delete("DistillationJob", name, NAMESPACE)):
        result = viewer.dram("watch", name)
    assert (result.exit_code, f"DistillationJob {NAMESPACE}/{name} was deleted" in result.output) == (4, True)


@pytest.mark.parametrize(("truth", "reason", "code"), [("True", "Completed", 0), ("False", "Quarantined", 3)])
def test_a_watched_rollout_ends_stable_or_in_quarantine(
    api: Api, viewer: Seat, name: str, once_watched: OnceWatched, truth: str, reason: str, code: int
) -> None:
    place_rollout(api, name, WAITING)
    after = RESTING.model_dump(mode="json", by_alias=True, exclude_none=True)
    conditions = [
        one | ({"status": truth, "reason": reason} if one["type"] in ("Ready", "Stalled") else {})
        for one in after["conditions"]
    ]
    gone = {"candidate": None, "step": None, "observedGeneration": 3, "conditions": conditions}
    with once_watched(name, lambda: set_status(api, "EdgeRollout", name, gone)):
        result = viewer.dram("rollout", "watch", name)
    assert result.exit_code == code, result.output
    assert "… step 2/5: AwaitingApproval: 8 of 10 healthy, 1 failed, 1 offline" in result.output
    assert result.output.splitlines()[-1].endswith(f"{reason}: Step 2 is watched.")


def test_a_name_that_is_not_there_meets_those_that_are(api: Api, viewer: Seat, name: str) -> None:
    place_job(api, a_job(), name)
    result = viewer.dram("status", f"{name}s")
    assert result.exit_code == 4
    assert result.output == f"there is no DistillationJob {NAMESPACE}/{name}s; there are {name}\n"


def test_a_kind_that_the_cluster_does_not_know_comes_with_the_remedy(
    viewer: Seat, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A version that no CRD serves is to the API server what a missing CRD is.
    monkeypatch.setattr(jobs, "DISTILLATION_JOBS", replace(DISTILLATION_JOBS, version="v9"))
    for arguments in (["status", "any"], ["get"]):
        result = viewer.dram(*arguments)
        assert result.exit_code == 4
        assert "this cluster does not know distillationjobs.dram.dev: install Dram's chart" in result.output


def test_nothing_to_talk_to(control_plane: ControlPlane, tmp_path: Path) -> None:
    config = yaml.safe_load(control_plane.kubeconfig.read_text())
    config["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    nobody = tmp_path / "nobody"
    nobody.write_text(yaml.safe_dump(config))
    cases = {
        (str(nobody),): "the cluster does not answer: ",
        (str(tmp_path / "none"),): "no usable kubeconfig: ",
        (str(control_plane.kubeconfig), "--context", "other"): "no usable kubeconfig: ",
    }
    for arguments, want in cases.items():
        result = CliRunner().invoke(main, ["status", "any", "--kubeconfig", *arguments])
        assert (result.exit_code, want in result.output) == (4, True), result.output


def test_a_field_that_this_version_does_not_know_is_left_out(api: Api, viewer: Seat, name: str) -> None:
    from dram_operator.api.distillation_job import DistillationJob
    from dram_operator.cli.cluster import Failure
    from dram_operator.cli.output import read_as

    obj = full().manifest()
    newer = json.loads(json.dumps(obj))
    newer["status"]["stages"][0]["energy"] = 3
    newer["spec"]["mood"] = {"good": True}
    assert read_as(DistillationJob, newer) == read_as(DistillationJob, obj)
    newer["status"]["run"] = "many"
    with pytest.raises(Failure, match=r"status\.run: .*install the one that belongs to the operator"):
        read_as(DistillationJob, newer)


@pytest.fixture(scope="module")
def reported(s3_server: S3Server) -> tuple[str, S3Server]:
    """A bucket with a report in it."""
    bucket = s3_server.bucket("kubectl-reports")
    s3_server.client().put_object(Bucket="kubectl-reports", Key="reports/tv/bot/report.html", Body=b"<h1>Bot</h1>")
    return f"{bucket}/reports/tv/bot/report.html", s3_server


def test_the_report_is_named_saved_and_opened(
    api: Api, viewer: Seat, name: str, reported: tuple[str, S3Server], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri, server = reported
    place_job(api, full().having("status.reportUri", uri), name)
    assert viewer.dram("report", name).output == f"{uri}\n"

    for variable, value in server.owner.environment().items():
        monkeypatch.setenv(variable, value)
    reach = ("--endpoint", server.endpoint, "--region", server.region)
    file = tmp_path / "report.html"
    saved = viewer.dram("report", name, "--save", str(file), *reach)
    assert (saved.exit_code, file.read_bytes()) == (0, b"<h1>Bot</h1>")
    assert viewer.dram("report", name, "--save", "-", *reach).stdout == "<h1>Bot</h1>"

    opened: list[str] = []
    monkeypatch.setattr("click.launch", lambda path: opened.append(Path(path).read_text()))
    assert viewer.dram("report", name, "--open", *reach).exit_code == 0
    assert opened == ["<h1>Bot</h1>"]


def test_a_report_that_cannot_be_had_says_why(
    api: Api, viewer: Seat, name: str, reported: tuple[str, S3Server], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    uri, server = reported
    place_job(api, under_way(), name)
    early = viewer.dram("report", name)
    assert (early.exit_code, "has no report yet" in early.output) == (4, True)

    set_status(api, "DistillationJob", name, {"reportUri": uri})
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "nothing")
    reach = ("--save", str(tmp_path / "r.html"), "--endpoint", server.endpoint, "--region", server.region)
    denied = viewer.dram("report", name, *reach)
    assert (denied.exit_code, f"{uri} cannot be read from here: " in denied.output) == (4, True)

    for variable, value in server.owner.environment().items():
        monkeypatch.setenv(variable, value)
    set_status(api, "DistillationJob", name, {"reportUri": uri.replace("report.html", "gone.html")})
    gone = viewer.dram("report", name, *reach)
    assert (gone.exit_code, "is not there any more" in gone.output) == (4, True)


def test_kubectl_completes_commands_options_and_names(
    api: Api, viewer: Seat, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    place_rollout(api, name, WAITING)

    def candidates(*words: str) -> list[str]:
        monkeypatch.setattr("sys.argv", ["kubectl_complete-dram", *words])
        completion.kubectl()
        return [line.partition("\t")[0] for line in capsys.readouterr().out.splitlines()]

    assert candidates("roll") == ["rollout", ":4"]
    assert candidates("rollout", "ab") == ["abort", ":4"]
    assert candidates("rollout", "abort", "--kubeconfig", str(viewer.kubeconfig), name[:5]) == [name, ":4"]
    assert candidates("rollout", "abort", "--kubeconfig", "/none", name[:5]) == [":4"]
    assert "--reason" in candidates("rollout", "abort", "--re")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_get_a_script(shell: str) -> None:
    result = CliRunner().invoke(main, ["completion", shell])
    assert (result.exit_code, "_DRAM_COMPLETE" in result.output) == (0, True)
