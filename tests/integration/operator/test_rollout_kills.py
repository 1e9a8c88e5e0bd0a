"""SIGKILL for the operator's process at every transition of a rollout: the same devices run the same releases."""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from dram_operator.settings import variable
from tests.cluster.api import Object
from tests.integration.operator.conftest import NewNamespace
from tests.integration.operator.courses import NAME, SLOW, begin, is_settled, outcome, start, wait_settled
from tests.integration.operator.fleet import Fault
from tests.integration.operator.rollouts import Site

pytestmark = pytest.mark.long

PROGRAM = (sys.executable, "-m", "tests.integration.operator.rollout_program")
LOOK_SECONDS = 0.03
LONGEST_SECONDS = 400.0


@dataclass
class Processes:
    """One operator after the other, over one namespace."""

    environment: dict[str, str]
    log: Path
    started: int = 0
    process: "subprocess.Popen[bytes]" = field(init=False)

    def start(self) -> None:
        """Start one; it waits for the lease of the one before."""
        self.started += 1
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(PROGRAM, env=os.environ | self.environment, stdout=log, stderr=log)

    def kill(self) -> None:
        """SIGKILL; returns when it is gone."""
        self.process.kill()
        self.process.wait()


def environment(site: Site, namespace: str) -> dict[str, str]:
    """The settings as the pod gets them."""
    settings = site.settings() | {
        "kubeconfig": site.plane.kubeconfig,
        "namespaces": namespace,
        "lease_namespace": "default",
        "lease_name": f"kills-{namespace}",
        "lease_seconds": 4,
        "metrics_port": 0,
        "image": "worker:1",
    }
    texts = {
        name: value if isinstance(value, str) else json.dumps(value, default=str) for name, value in settings.items()
    }
    return {variable(name): text.strip('"') for name, text in texts.items()}


def transition(obj: Object) -> str:
    """Where the rollout stands, in a word that changes with every transition."""
    status = obj.get("status", {})
    reasons = [one["reason"] for one in status.get("conditions", ()) if one["type"] in ("Ready", "Published")]
    rollback = status.get("rollback") or {}
    back = ("back" if "completedAt" in rollback else "going back") if rollback else ""
    return " ".join([str(status.get("attempt", 0)), str((status.get("step") or {}).get("index", "-")), *reasons, back])


@pytest.mark.timeout(900)
@pytest.mark.parametrize("fault", [None, SLOW], ids=["good", "slow"])
def test_an_operator_that_is_killed_at_every_transition_brings_it_to_the_same_end(
    site: Site, new_namespace: NewNamespace, fault: Fault | None, tmp_path: Path
) -> None:
    calm, troubled = new_namespace(), new_namespace()
    quiet = begin(site, calm, fault)
    with site.replica(calm):
        start(site, calm)
        wait_settled(site, calm, quiet)

    channel, seen = begin(site, troubled, fault), {""}
    operators = Processes(environment(site, troubled), tmp_path / "operators.log")
    operators.start()
    try:
        start(site, troubled)
        deadline = time.monotonic() + LONGEST_SECONDS
        while not is_settled(obj := site.get(troubled, NAME)) and time.monotonic() < deadline:
            if (now := transition(obj)) not in seen:
                seen.add(now)
                operators.kill()
                operators.start()
            time.sleep(LOOK_SECONDS)
        operators.kill()
        operators.start()
        wait_settled(site, troubled, channel)
    finally:
        operators.kill()

    log = operators.log.read_text()
    assert outcome(site, channel, troubled) == outcome(site, quiet, calm), f"{sorted(seen)}\n{log[-3000:]}"
    assert len(seen) >= 6, sorted(seen)
    assert operators.started >= len(seen)
