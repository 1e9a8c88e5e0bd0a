"""The Kubernetes objects of an attempt, held against a golden file."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from dram_operator.core.installation import Installation
from dram_operator.core.jobs import attempt_name, children
from dram_operator.core.worker_pod import CONFIG_ANNOTATION
from dram_workers.stages import STAGE_CONFIG, StageKind
from tests.builders import AJob, a_job
from tests.operator.core.world import INSTALLATION, World

GOLDEN = Path(__file__).with_name("golden")
ON_CLUSTER = replace(INSTALLATION, progress_url="https://dram-operator.dram.svc:8443", progress_ca="PEM")


def objects(job: AJob, stage: str, installation: Installation = ON_CLUSTER) -> list[dict[str, Any]]:
    world = World(job.having("metadata.uid", "4f5a").build(), installation)
    world.run_to(stage)
    attempt = world.attempts[world.view_of(stage).name]
    return list(children(world.job, attempt, installation))


def pod_of(job: AJob, stage: str = "resolve", installation: Installation = ON_CLUSTER) -> dict[str, Any]:
    return dict(objects(job, stage, installation)[-1]["spec"]["template"]["spec"])


@pytest.mark.parametrize("stage", ["resolve", "train"])
def test_objects_are_as_recorded(stage: str) -> None:
    job = a_job().with_training(workers=2).having("spec.storage.caBundle", "PEM")
    made = yaml.safe_dump_all(objects(job, stage), sort_keys=True)
    assert made == (GOLDEN / f"{stage}.yaml").read_text()


def test_the_config_in_the_annotation_is_what_the_worker_parses() -> None:
    body = objects(a_job(), "train")[-1]["spec"]["template"]["metadata"]["annotations"][CONFIG_ANNOTATION]
    config = STAGE_CONFIG.validate_json(body)
    assert config.kind is StageKind.TRAIN
    assert len(config.key) == 64
    assert config.inputs["dataset"].uri.startswith("s3://models/dram/stages/data/")


def test_pods_are_restricted() -> None:
    pod = pod_of(a_job(), "train")
    container = pod["containers"][0]
    assert pod["securityContext"]["runAsNonRoot"]
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False


def test_credentials_come_from_the_secret_by_reference() -> None:
    env = {entry["name"]: entry for entry in pod_of(a_job())["containers"][0]["env"]}
    assert env["AWS_SECRET_ACCESS_KEY"]["valueFrom"]["secretKeyRef"]["name"] == "s3-credentials"
    assert env["AWS_SESSION_TOKEN"]["valueFrom"]["secretKeyRef"]["optional"] is True


def test_only_stages_that_ask_the_endpoint_are_given_its_key() -> None:
    job = a_job().with_endpoint(secretRef={"name": "openai"}).with_synthetic()
    given = {
        stage: [env for env in pod_of(job, stage)["containers"][0]["env"] if env["name"] == "OPENAI_API_KEY"]
        for stage in ("resolve", "synthesize", "evaluate-teacher", "train", "evaluate-student")
    }
    reference = {"secretKeyRef": {"name": "openai", "key": "OPENAI_API_KEY", "optional": False}}
    key = [{"name": "OPENAI_API_KEY", "valueFrom": reference}]
    assert given == {"resolve": key, "synthesize": key, "evaluate-teacher": key, "train": [], "evaluate-student": []}


def test_storage_rights_may_come_from_a_service_account() -> None:
    storage = {"uri": "s3://models/dram", "serviceAccountName": "distiller"}
    pod = pod_of(a_job().having("spec.storage", storage))
    assert pod["serviceAccountName"] == "distiller"
    assert not [entry for entry in pod["containers"][0]["env"] if entry["name"].startswith("AWS")]


def test_a_queue_name_makes_a_suspended_job_for_kueue() -> None:
    body = objects(a_job().having("spec.podTemplate", {"queueName": "gpu"}), "resolve")[-1]
    assert body["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpu"
    assert body["spec"]["suspend"] is True


def test_every_override_reaches_the_pod() -> None:
    override = {
        "image": "mine:2",
        "resources": {"default": {"requests": {"cpu": "2"}}},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
        "affinity": {"nodeAffinity": {}},
        "priorityClassName": "low",
        "runtimeClassName": "nvidia",
        "envFromSecrets": [{"name": "HF_TOKEN", "secretName": "hub", "key": "token"}],
        "labels": {"team": "voice"},
        "annotations": {"note": "x"},
    }
    job = a_job().having("spec.podTemplate", override)
    template = objects(job, "resolve")[-1]["spec"]["template"]
    pod, container = template["spec"], template["spec"]["containers"][0]
    assert (container["image"], container["resources"]) == ("mine:2", {"requests": {"cpu": "2"}, "limits": {}})
    assert (pod["nodeSelector"], pod["tolerations"]) == ({"disk": "ssd"}, [{"key": "gpu", "operator": "Exists"}])
    assert (pod["affinity"], pod["priorityClassName"]) == ({"nodeAffinity": {}}, "low")
    assert pod["runtimeClassName"] == "nvidia"
    assert container["env"][-1]["valueFrom"]["secretKeyRef"] == {"name": "hub", "key": "token", "optional": False}
    assert template["metadata"]["labels"]["team"] == "voice"
    assert template["metadata"]["annotations"]["note"] == "x"


def test_resources_of_a_kind_come_before_the_default() -> None:
    sizes = {"train": {"limits": {"memory": "9Gi"}}, "default": {"limits": {"memory": "1Gi"}}}
    job = a_job().having("spec.podTemplate", {"resources": sizes})
    assert pod_of(job, "train")["containers"][0]["resources"]["limits"] == {"memory": "9Gi"}
    assert pod_of(job, "resolve")["containers"][0]["resources"]["limits"] == {"memory": "1Gi"}


def test_claims_are_mounted_read_only() -> None:
    pod = pod_of(a_job().having("spec.teacher.uri", "pvc://models/teacher"))
    assert pod["volumes"][-1]["persistentVolumeClaim"] == {"claimName": "models", "readOnly": True}
    assert pod["containers"][0]["volumeMounts"][-1]["mountPath"] == "/mnt/pvc/models"


def test_pull_secrets_of_the_installation_are_passed_on() -> None:
    pod = pod_of(a_job(), installation=replace(INSTALLATION, image_pull_secrets=("registry",)))
    assert pod["imagePullSecrets"] == [{"name": "registry"}]
    assert [volume["name"] for volume in pod["volumes"]] == ["config", "scratch"]


def test_names_stay_dns_labels_and_differ() -> None:
    job, stage = "a" * 40, "evaluate-" + "b" * 32
    first, second = attempt_name(job, stage, 1), attempt_name(job, stage + "c", 1)
    assert len(first) <= 63
    assert first != second
    assert attempt_name("x", "train", 12) == "x-train-12"


def test_a_full_config_fits_an_annotation() -> None:
    job = a_job().exporting("F16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_0")
    annotations = objects(job, "publish")[-1]["spec"]["template"]["metadata"]["annotations"]
    assert len(json.dumps(annotations)) < 128 * 1024


def test_pods_of_the_teacher_are_numbered_and_need_no_service() -> None:
    job = a_job().with_synthetic().having("spec.teacher.workers", 3)
    (body,) = objects(job, "synthesize")
    spec = body["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 3)
    assert (spec["backoffLimit"], spec["podReplacementPolicy"]) == (0, "Failed")
    assert "completionMode" not in objects(a_job().with_synthetic(), "synthesize")[-1]["spec"]


GPU = {"limits": {"nvidia.com/gpu": "1"}}
MIG = {"requests": {"nvidia.com/mig-1g.10gb": "1"}}
TWO_IMAGES = replace(ON_CLUSTER, image="worker:1", cuda_image="worker-cuda:1")


@pytest.mark.parametrize(
    ("pods", "installation", "want"),
    [
        ({}, TWO_IMAGES, "worker:1"),
        ({"resources": {"train": GPU}}, TWO_IMAGES, "worker-cuda:1"),
        ({"resources": {"default": MIG}}, TWO_IMAGES, "worker-cuda:1"),
        ({"resources": {"train": {"limits": {"amd.com/gpu": "1"}}}}, TWO_IMAGES, "worker:1"),
        ({"resources": {"train": GPU}, "image": "own:1"}, TWO_IMAGES, "own:1"),
        ({"resources": {"train": GPU}}, replace(TWO_IMAGES, cuda_image=""), "worker:1"),
    ],
)
def test_a_job_that_asks_for_gpus_gets_the_image_for_them(
    pods: dict[str, Any], installation: Installation, want: str
) -> None:
    (container,) = pod_of(a_job().having("spec.podTemplate", pods), "resolve", installation)["containers"]
    assert container["image"] == want
