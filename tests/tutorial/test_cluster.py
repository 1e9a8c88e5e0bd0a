"""The tutorial's second half, typed as it stands there, by bash, kubectl and helm.

The API server, its controllers, the chart, the operator's rights, S3, Prometheus and the signatures are real. There is no node: what the pods of
operator and release name is run as processes. The two model files are a few bytes, because nothing here loads them.
"""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.cluster.binaries import binary
from tests.cluster.controlplane import ControlPlane
from tests.cluster.processes import free_ports
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.s3 import S3Server
from tests.integration.operator.release_pods import ReleasePods
from tests.tutorial.operator_pod import OperatorPod
from tests.tutorial.page import ROOT, blocks, environment

pytestmark = [pytest.mark.long, pytest.mark.timeout(1200)]

MARK = "@@ block"


def script() -> str:
    """All blocks as one session of a shell, which says where each begins and how it ended."""
    lines = ["set -uo pipefail"]
    for number, block in enumerate(blocks("cluster")):
        if "settings" not in block.words:
            lines += [f"echo '{MARK} {number}'", "set -e" if block.exit_code == 0 else "set +e", block.script]
            lines += [f"code=$?; set +e; [ $code = {block.exit_code} ] || {{ echo exit code $code; exit 1; }}"]
    return "\n".join(lines)


def settings() -> set[str]:
    """Names that the page asks its reader to set."""
    text = "".join(block.script for block in blocks("cluster") if "settings" in block.words)
    return set(re.findall(r"(\w+)=", text))


def model(folder: Path, content: bytes) -> None:
    """An artifact as the demo leaves it."""
    manifest = json.dumps(
        {
            "formatVersion": 1,
            "files": [
                {
                    "path": "model.gguf",
                    "sha256": hashlib.sha256(content).hexdigest(),
                    "size": len(content),
                    "role": "model",
                }
            ],
            "measures": [{"name": "peakMemoryMiB", "value": 96.0}],
        }
    ).encode()
    place = folder / hashlib.sha256(manifest).hexdigest()
    place.mkdir(parents=True)
    (place / "manifest.json").write_bytes(manifest)
    (place / "model.gguf").write_bytes(content)


@pytest.fixture
def desk(tmp_path: Path) -> Path:
    """A checkout in which `make demo` has run."""
    for name in ("examples", "charts"):
        (tmp_path / name).symlink_to(ROOT / name)
    made = tmp_path / "build" / "demo" / "support-bot" / "artifacts" / "default" / "support-bot"
    model(made / "gguf-q4-k-m", b"GGUF four bits")
    model(made / "gguf-q8-0", b"GGUF eight bits")
    return tmp_path


@pytest.fixture
def plane() -> Iterator[ControlPlane]:
    with ControlPlane(controllers=True) as plane:
        yield plane


def test_from_nothing_to_a_rolled_back_release(
    desk: Path, plane: ControlPlane, tmp_path_factory: pytest.TempPathFactory
) -> None:
    devices = f"127.0.0.1:{free_ports(1)[0]}"
    kiosks = {"job_name": "kiosks", "scrape_interval": "5s", "static_configs": [{"targets": [devices]}]}
    pods = tmp_path_factory.mktemp("pods")
    with (
        S3Server(public="releases") as s3,
        PrometheusServer(config={"global": {"scrape_timeout": "5s"}, "scrape_configs": [kiosks]}) as prometheus,
        OperatorPod(plane, "dram-system", pods / "operator") as operator,
        ReleasePods(plane.api(), "shop", pods / "release"),
    ):
        for bucket in ("models", "releases"):
            s3.bucket(bucket)
        given = {"S3": s3.endpoint, "PROMETHEUS": prometheus.url, "DEVICES": devices, "IMAGES": "dram.test"}
        given |= s3.owner.environment()
        assert set(given) == settings()

        printed = typed(desk, environment() | given | {"KUBECONFIG": str(plane.kubeconfig)}, operator)

    first, _, second = printed.partition("edgerollout.dram.dev/kiosk patched")
    assert re.search(r"^kiosk +Completed ", first, re.MULTILINE)
    assert "10 devices are meant to run" in first
    assert "10 devices are meant to run" not in second, "the bad release went no further than its first step"
    assert re.search(r"RollingBack .*p95-latency: \S+ is above 1.5", second)
    assert "Quarantined" in second


def typed(desk: Path, surroundings: dict[str, str], operator: OperatorPod) -> str:
    """Run the page; returns what it printed."""
    path = os.pathsep.join([str(binary("helm").parent), str(binary("kubectl").parent), surroundings["PATH"]])
    log = desk / "session.log"
    with log.open("wb") as output:
        done = subprocess.run(
            ["bash", "-c", script()],
            cwd=desk,
            env=surroundings | {"PATH": path},
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=900,
            check=False,
        )
    assert done.returncode == 0, f"{log.read_text()}\n{operator.log[-8000:]}"
    return log.read_text()
