"""The kubelet's part for the operator's pod: what its Deployment says, run as a process with the chart's own rights."""

import base64
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

import urllib3

from tests.cluster.api import Api, Object
from tests.cluster.controlplane import ControlPlane
from tests.cluster.processes import free_ports
from tests.cluster.rounds import Rounds
from tests.tutorial.page import environment

SELECTOR = "app.kubernetes.io/component=operator"


@dataclass
class OperatorPod(Rounds):
    """`with OperatorPod(plane, "dram-system", folder):` runs the first pod of the operator that appears."""

    plane: ControlPlane
    namespace: str
    folder: Path
    metrics_port: int = field(default_factory=lambda: free_ports(1)[0])
    process: subprocess.Popen[bytes] | None = field(default=None, init=False)

    @property
    def api(self) -> Api:
        """Requests as the administrator."""
        return self.plane.api()

    @property
    def log(self) -> str:
        """What the operator wrote."""
        file = self.folder / "operator.log"
        return file.read_text() if file.exists() else ""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        super().__exit__(kind, error, traceback)
        if self.process is not None:
            self.process.terminate()
            self.process.wait()

    def look(self) -> bool:
        """Start the pod once it is there, and tell once that it is ready."""
        pods = self.api.list("Pod", self.namespace, labels=SELECTOR)
        if pods and self.process is None:
            self._start(pods[0])
        elif pods and self._is_ready():
            self._tell_ready(pods[0])
            return True
        return False

    def _start(self, pod: Object) -> None:
        container = pod["spec"]["containers"][0]
        roots = {mount["mountPath"]: self.folder / mount["name"] for mount in container["volumeMounts"]}
        for volume in pod["spec"]["volumes"]:
            self._fill(volume, self.folder / volume["name"])
        given = {one["name"]: self._value(one, pod) for one in container["env"]}
        for name, value in given.items():
            for path, folder in roots.items():
                given[name] = given[name].replace(path, str(folder)) if value.startswith(("/", "[")) else given[name]
        account = pod["spec"]["serviceAccountName"]
        own = {
            "KUBECONFIG": str(self.plane.service_account_kubeconfig(self.namespace, account)),
            "DRAM_METRICS_PORT": str(self.metrics_port),
            "DRAM_PROGRESS_PORT": str(free_ports(1)[0]),
        }
        with (self.folder / "operator.log").open("wb") as log:
            command = [sys.executable, "-m", "dram_operator.cli", *container["args"]]
            surroundings = {name: value for name, value in environment().items() if not name.startswith("AWS_")}
            self.process = subprocess.Popen(command, env=surroundings | given | own, stdout=log, stderr=log)

    def _value(self, variable: Object, pod: Object) -> str:
        if "value" in variable:
            return str(variable["value"])
        source = variable["valueFrom"]
        if "fieldRef" in source:
            return str(pod["metadata"]["name"]) if source["fieldRef"]["fieldPath"] == "metadata.name" else "127.0.0.1"
        return self._secret(source["secretKeyRef"]["name"]).get(source["secretKeyRef"]["key"], b"").decode()

    def _fill(self, volume: Object, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        sources = volume.get("projected", {}).get("sources", [volume])
        for source in sources:
            data = self._data(source)
            keys = (source.get("secret") or source.get("configMap") or {}).get("items")
            for item in keys or [{"key": key, "path": key} for key in data]:
                (folder / item["path"]).write_bytes(data[item["key"]])

    def _data(self, source: Object) -> dict[str, bytes]:
        if "secret" in source:
            return self._secret(source["secret"].get("secretName") or source["secret"]["name"])
        if "configMap" not in source:
            return {}
        found = self.api.find("ConfigMap", source["configMap"]["name"], self.namespace) or {}
        return {key: text.encode() for key, text in found.get("data", {}).items()}

    def _secret(self, name: str) -> dict[str, bytes]:
        found = self.api.get("Secret", name, self.namespace)
        return {key: base64.b64decode(value) for key, value in found["data"].items()}

    def _is_ready(self) -> bool:
        try:
            return urllib3.request("GET", f"http://127.0.0.1:{self.metrics_port}/readyz", retries=False).status == 200
        except urllib3.exceptions.HTTPError:
            return False

    def _tell_ready(self, pod: Object) -> None:
        metadata, ready = pod["metadata"], {"type": "Ready", "status": "True"}
        status = {"phase": "Running", "conditions": [ready, {"type": "ContainersReady", "status": "True"}]}
        self.api.patch("Pod", metadata["name"], metadata["namespace"], {"status": status}, subresource="status")
