"""The kubelet's part for release pods: each runs for real, as a process with what its pod names, against the real S3."""

import base64
import os
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

from dram_operator.core.rollout.release import ROLLOUT_LABEL
from dram_operator.core.worker_pod import CONFIG_ANNOTATION
from dram_workers.release.contract import ReleaseConfig
from tests.cluster.api import Api, ApiError, Object
from tests.cluster.rounds import Rounds
from tests.integration.operator.kubelet import AT_WORK, Ending, ended


@dataclass
class ReleasePods(Rounds):
    """`with ReleasePods(api, folder):` runs the release pods of one namespace, one after the other."""

    api: Api
    namespace: str
    folder: Path
    held: bool = False
    """Pods wait, as on a cluster without room."""
    ran: list[str] = field(default_factory=list)
    """Pods in the order in which they ran."""

    def look(self) -> bool:
        """Run the pods that are there."""
        for pod in self.api.list("Pod", self.namespace, labels=ROLLOUT_LABEL, fields=AT_WORK):
            if not self.held and "deletionTimestamp" not in pod["metadata"]:
                self._play(pod)
        return False

    def _play(self, pod: Object) -> None:
        metadata = pod["metadata"]
        self.ran.append(metadata["name"])
        ending = self._work(pod)
        try:
            self.api.patch(
                "Pod", metadata["name"], self.namespace, {"status": ended(pod, ending)}, subresource="status"
            )
        except ApiError as error:
            if error.status != 404:
                raise

    def _work(self, pod: Object) -> Ending:
        folder = self.folder / pod["metadata"]["name"]
        folder.mkdir(parents=True)
        config, log = folder / "config.json", folder / "termination-log"
        asked = ReleaseConfig.model_validate_json(pod["metadata"]["annotations"][CONFIG_ANNOTATION])
        # The emptyDir of this pod.
        config.write_text(asked.model_copy(update={"scratch": str(folder)}).model_dump_json())
        container = pod["spec"]["containers"][0]
        program, *arguments = container["command"]
        assert program == "dram"
        assert arguments[:2] == ["worker", "release"]
        ran = subprocess.run(
            [sys.executable, "-m", "dram_workers", "release", "--config", str(config)],
            env=_bare() | self._environment(container) | {"DRAM_TERMINATION_LOG": str(log)},
            timeout=120,
            check=False,
        )
        return Ending(ran.returncode, log.read_text() if log.exists() else None)

    def _environment(self, container: Object) -> dict[str, str]:
        """The variables of the container, with what its Secrets hold."""
        found = {}
        for entry in container["env"]:
            ref = entry.get("valueFrom", {}).get("secretKeyRef")
            if ref is None:
                found[entry["name"]] = entry["value"]
                continue
            data = self.api.get("Secret", ref["name"], self.namespace)["data"]
            if ref["key"] in data:
                found[entry["name"]] = base64.b64decode(data[ref["key"]]).decode()
            else:
                assert ref.get("optional"), f"{ref['name']} has no {ref['key']}"
        return found


def _bare() -> dict[str, str]:
    """Nothing of this process but where Python is: its credentials are not the pod's."""
    return {name: os.environ[name] for name in ("PATH", "PYTHONPATH", "PYTHONPYCACHEPREFIX") if name in os.environ}
