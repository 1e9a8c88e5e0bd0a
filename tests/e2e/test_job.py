"""A DistillationJob from its manifest to its artifacts, on a whole cluster."""

import hashlib
import json
from pathlib import Path

from tests.cluster.api import wait_until
from tests.e2e.installation import Installation
from tests.e2e.story import Story
from tests.e2e.tiny import job_for


def test_a_manifest_ends_in_files_whose_digests_the_status_names(undisturbed: Story) -> None:
    status = undisturbed.status()
    conditions = {condition["type"]: condition["status"] for condition in status["conditions"]}
    assert conditions == {
        "Succeeded": "True",
        "Reconciling": "False",
        "Stalled": "False",
        "DataReady": "True",
        "Distilled": "True",
        "Exported": "True",
        "GatesPassed": "True",
        "Published": "True",
    }
    (variant,) = status["variants"]
    manifest = undisturbed.read(f"{variant['uri']}/manifest.json")
    assert variant["sha256"] == hashlib.sha256(manifest).hexdigest()
    for file in json.loads(manifest)["files"]:
        assert file["sha256"] == hashlib.sha256(undisturbed.read(f"{variant['uri']}/{file['path']}")).hexdigest()
    assert b"gguf-q8-0" in undisturbed.read(status["reportUri"])


def test_a_plain_runtime_loads_the_published_file(undisturbed: Story, tmp_path: Path) -> None:
    from dram_workers.llamacpp.model import LlamaModel

    (variant,) = undisturbed.status()["variants"]
    manifest = json.loads(undisturbed.read(f"{variant['uri']}/manifest.json"))
    name = next(file["path"] for file in manifest["files"] if file["path"].endswith(".gguf"))
    local = tmp_path / "model.gguf"
    local.write_bytes(undisturbed.read(f"{variant['uri']}/{name}"))

    with LlamaModel(local) as model:
        assert model.vocabulary == 500


def test_every_transition_has_one_event(undisturbed: Story) -> None:
    events = undisturbed.api.list("Event", undisturbed.namespace, fields="involvedObject.kind=DistillationJob")
    said = [(event["reason"], event["message"]) for event in events]
    assert said
    assert len(said) == len(set(said))


def test_another_job_with_the_same_recipe_trains_nothing_and_leaves_only_its_artifacts(undisturbed: Story) -> None:
    again = Story(undisturbed.api, undisturbed.s3, undisturbed.namespace, "tiny-again")
    again.apply(job_for(undisturbed))

    status = again.wait_succeeded()

    cached = {stage["id"] for stage in status["stages"] if stage["result"]["cached"]}
    assert cached >= {"data", "train", "evaluate-teacher", "evaluate-student"}
    published = again.stored("artifacts/")
    assert any(f"/{again.name}/" in key for key in published)

    again.delete()

    assert again.children() == []
    assert again.stored("artifacts/") == published


def test_a_running_job_deleted_leaves_no_child(story: Story) -> None:
    story.apply(job_for(story))
    story.wait_stage("resolve")

    story.delete()

    assert story.children() == []


def test_a_finished_job_goes_when_its_time_is_up(story: Story) -> None:
    job = job_for(story).having("spec.ttlSecondsAfterFinished", 1).having("spec.teacher.uri", "s3://models/absent")
    story.apply(job)

    wait_until(
        lambda: story.api.find("DistillationJob", story.name, story.namespace) is None, "the job to go", explain=str
    )

    wait_until(lambda: not story.children(), "its children to go")


def test_pods_report_progress_that_the_operator_shows(undisturbed: Story, installation: Installation) -> None:
    assert undisturbed.status()["progress"]["stage"]
    (pod,) = installation.pods()
    path = f"/api/v1/namespaces/dram-system/pods/{pod['metadata']['name']}:8080/proxy/metrics"
    metrics = installation.api.request("GET", path)
    assert f'dram_job_progress_ratio{{name="tiny",namespace="{undisturbed.namespace}"}}' in metrics
