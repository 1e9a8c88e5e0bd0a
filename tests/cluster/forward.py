"""A Service of the cluster on this machine, wherever the cluster is."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.cluster.binaries import binary
from tests.cluster.processes import Processes, free_ports, fresh_folder


@contextmanager
def forwarded(kubeconfig: Path, namespace: str, service: str, port: int) -> Iterator[str]:
    """A Service's port by `kubectl port-forward`, for as long as a block lasts; yields its URL."""
    (here,) = free_ports(1)
    folder = fresh_folder("forward")
    processes = Processes(folder)
    where = ["--kubeconfig", str(kubeconfig), "--namespace", namespace]
    try:
        processes.start(
            "kubectl", [str(binary("kubectl")), *where, "port-forward", f"service/{service}", f"{here}:{port}"]
        )
        processes.wait_ready("kubectl", lambda: "Forwarding from" in processes.log("kubectl"))
        yield f"http://127.0.0.1:{here}"
    finally:
        processes.stop_all()
        shutil.rmtree(folder, ignore_errors=True)
