"""The tutorial's second half as one session of a shell: what it is given, how it is typed, what it has to show."""

import hashlib
import json
import os
import re
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.cluster.binaries import binary
from tests.cluster.s3 import S3Server
from tests.tutorial.page import ROOT, blocks, environment

MARK = "@@ block"
PATIENCE_SECONDS = 900


def script() -> str:
    """All blocks in their order; it says where each begins, and ends where one ends otherwise than the page says."""
    lines = ["set -uo pipefail"]
    for number, block in enumerate(blocks("cluster")):
        if "settings" not in block.words:
            lines += [f"echo '{MARK} {number}'", "set -e" if block.exit_code == 0 else "set +e", block.script]
            lines += [f"code=$?; set +e; [ $code = {block.exit_code} ] || {{ echo exit code $code; exit 1; }}"]
    return "\n".join(lines)


def settings(s3: S3Server, prometheus: str, devices: str, operator: str, worker: str) -> dict[str, str]:
    """What the page asks its reader to set."""
    places = {"S3": s3.endpoint, "PROMETHEUS": prometheus, "DEVICES": devices}
    given = {**places, "OPERATOR": operator, "WORKER": worker, **s3.owner.environment()}
    text = "".join(block.script for block in blocks("cluster") if "settings" in block.words)
    assert set(given) == set(re.findall(r"(\w+)=", text))
    return given


def scraping(devices: str, operator: str | None = None) -> dict[str, Any]:
    """Prometheus' configuration, as the page says; and the operator, for the dashboards."""
    kiosks = {"job_name": "kiosks", "scrape_interval": "5s", "static_configs": [{"targets": [devices]}]}
    others = [
        {"job_name": "dram", "scrape_interval": "1s", "scrape_timeout": "1s", "honor_labels": True}
        | {"static_configs": [{"targets": [address]}]}
        for address in (operator,)
        if address
    ]
    return {"global": {"scrape_timeout": "5s"}, "scrape_configs": [kiosks, *others]}


def set_desk(folder: Path) -> None:
    """A checkout in which `make demo` has run. The models are a few bytes, because nothing of the tutorial loads them."""
    for name in ("examples", "charts"):
        (folder / name).symlink_to(ROOT / name)
    made = folder / "build" / "demo" / "support-bot" / "artifacts" / "default" / "support-bot"
    _model(made / "gguf-q4-k-m", b"GGUF four bits")
    _model(made / "gguf-q8-0", b"GGUF eight bits")


def _model(folder: Path, content: bytes) -> None:
    """An artifact as the demo leaves it."""
    entry = {"path": "model.gguf", "sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "role": "model"}
    measures = [{"name": "peakMemoryMiB", "value": 96.0}]
    manifest = json.dumps({"formatVersion": 1, "files": [entry], "measures": measures}).encode()
    place = folder / hashlib.sha256(manifest).hexdigest()
    place.mkdir(parents=True)
    (place / "manifest.json").write_bytes(manifest)
    (place / "model.gguf").write_bytes(content)


def typed(desk: Path, given: Mapping[str, str], kubeconfig: Path) -> tuple[int, str]:
    """Type everything at this desk; returns the exit code and what was printed."""
    surroundings = environment() | dict(given) | {"KUBECONFIG": str(kubeconfig)}
    programs = [str(binary(name).parent) for name in ("helm", "kubectl")]
    surroundings["PATH"] = os.pathsep.join([*programs, surroundings["PATH"]])
    log = desk / "session.log"
    with log.open("wb") as output:
        done = subprocess.run(
            ["bash", "-c", script()],
            cwd=desk,
            env=surroundings,
            stdout=output,
            stderr=subprocess.STDOUT,
            timeout=PATIENCE_SECONDS,
            check=False,
        )
    return done.returncode, log.read_text()


def tells_the_story(printed: str) -> None:
    """The good release became stable everywhere; the bad one came back from its first step."""
    first, _, second = printed.partition("edgerollout.dram.dev/kiosk patched")
    assert re.search(r"^kiosk +Completed ", first, re.MULTILINE)
    assert "10 devices are meant to run" in first
    watched, ended, _ = second.partition("Quarantined")
    assert "2 devices are meant to run" in watched
    assert "10 devices are meant to run" not in watched, "the bad release went further than its first step"
    assert re.search(r"RollingBack.*p95-latency: \S+ is above 1.5", watched)
    assert ended
