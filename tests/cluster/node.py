"""A whole Kubernetes node on this machine: control plane, scheduler, kubelet, kube-proxy, DNS, containerd. Needs root.

`python -m tests.cluster.node up|down|load IMAGE` keeps it running between commands; `with Node() as node:` is for tests.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Self

import psutil
import urllib3

from tests.cluster import images, node_files
from tests.cluster.api import Api, ApiError
from tests.cluster.binaries import binary
from tests.cluster.controlplane import ControlPlane
from tests.cluster.folders import cache_folder
from tests.cluster.processes import Processes, end_recorded, free_ports

NAME = "node1"
BRIDGE = "dram0"
PROGRAMS = ("ip", "iptables", "conntrack", "containerd", "ctr", "runc", "buildah", "debootstrap")
PACKAGES = Path(__file__).with_name("debian-packages.txt")
KEPT = ("containerd",)


class NodeImpossible(RuntimeError):
    """This machine cannot be a node; the message says what is missing."""


class Node:
    """One node; its image store outlives it, everything else goes with it."""

    address = node_files.ADDRESS

    def __init__(self) -> None:
        self.folder = cache_folder("node")
        self.processes = Processes(self.folder)
        self._plane: ControlPlane | None = None

    def __enter__(self) -> Self:
        _check_machine()
        self.down()
        try:
            self.up()
        except BaseException:
            self.down()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.down()

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig."""
        return self.folder / "admin.kubeconfig"

    @property
    def audit_log(self) -> Path:
        """The API server's audit log."""
        return self.folder / "audit.jsonl"

    def api(self) -> Api:
        """Requests as the administrator."""
        return Api(self.kubeconfig)

    def up(self) -> None:
        """Start every part and wait until the node is Ready."""
        _network_up(self.folder)
        plane = ControlPlane(controllers=True, folder=self.folder, node_address=self.address).__enter__()
        self._plane = plane
        kubeconfigs = {
            part: plane.component_kubeconfig(f"system:{part}") for part in ("kube-scheduler", "kube-proxy", "coredns")
        }
        kubelet = plane.component_kubeconfig(f"system:node:{NAME}", "system:nodes")
        plane.serving_certificate("serving", (self.address, NAME))
        node_files.write(self.folder, BRIDGE, kubeconfigs["coredns"])
        start = self.processes.start
        scheduler = [f"--kubeconfig={kubeconfigs['kube-scheduler']}", "--secure-port=0", "--leader-elect=false"]
        start("kube-scheduler", [str(binary("kube-scheduler")), *scheduler])
        start("coredns", [str(binary("coredns")), "-conf", "Corefile"])
        start("containerd", ["containerd", "-c", "containerd.toml"])
        # Its socket answers before the part that the kubelet needs, which refuses until this line.
        self.processes.wait_ready("containerd", lambda: "Start streaming server" in self.processes.log("containerd"))
        self._start_kubelet(kubelet)
        self.processes.wait_ready("kubelet", self._is_ready)
        self._tell_of_disk()
        # After the node is there: kube-proxy asks for it once, and then waits half a minute.
        self._start_proxy(kubeconfigs["kube-proxy"])

    def down(self) -> None:
        """End every part, also of a run that was killed, and take back what it changed on this machine."""
        for part in ("kubelet", "kube-proxy", "kube-controller-manager", "kube-scheduler"):
            self.processes.stop(part)
        for shim in _shims(self.folder):
            _kill_tree(shim)
        end_recorded(self.folder)
        self.processes.stop_all()
        if self._plane is not None:
            # They have ended; this process has yet to be told.
            self._plane.processes.stop_all()
        _unmount(self.folder)
        _network_down(self.folder)
        for path in self.folder.iterdir():
            if path.name not in KEPT:
                shutil.rmtree(path) if path.is_dir() else path.unlink()

    def ensure(self) -> None:
        """Have it up, from an earlier run or anew; it stays when this process ends. NodeImpossible."""
        _check_machine()
        if not self.is_up():
            self.down()
            self.up()

    def is_up(self) -> bool:
        """Whether an earlier `up` still runs."""
        if not self.kubeconfig.exists():
            return False
        try:
            return self._is_ready()
        except (ApiError, urllib3.exceptions.HTTPError):
            return False

    def load(self, image: str) -> None:
        """Bring an image that buildah built to the node."""
        images.load(image, self.folder / "containerd.sock")

    def kill(self, container: str) -> None:
        """SIGKILL a container's first process, as the kernel or a power cut does."""
        images.kill(container, self.folder / "containerd.sock")

    def _start_kubelet(self, kubeconfig: Path) -> None:
        config = ["--config=kubelet.yaml", f"--kubeconfig={kubeconfig}", f"--root-dir={self.folder}/kubelet"]
        identity = [f"--hostname-override={NAME}", f"--node-ip={self.address}"]
        self.processes.start("kubelet", [str(binary("kubelet")), *config, *identity])

    def _tell_of_disk(self) -> None:
        """A kubelet that does not watch over the disk reports none, and no pod that asks for some would be scheduled."""
        free = {"ephemeral-storage": str(shutil.disk_usage(self.folder).free)}
        change = {"status": {"capacity": free, "allocatable": free}}
        self.api().patch("Node", NAME, None, change, subresource="status")

    def _start_proxy(self, kubeconfig: Path) -> None:
        metrics, health = (f"127.0.0.1:{port}" for port in free_ports(2))
        where = [f"--kubeconfig={kubeconfig}", f"--hostname-override={NAME}", f"--cluster-cidr={node_files.POD_RANGE}"]
        # Pods share one bridge, so that answers to a Service's clients would bypass the address translation.
        how = ["--proxy-mode=iptables", "--masquerade-all"]
        listen = [f"--metrics-bind-address={metrics}", f"--healthz-bind-address={health}"]
        self.processes.start("kube-proxy", [str(binary("kube-proxy")), *where, *how, *listen])
        self.processes.wait_ready("kube-proxy", lambda: _answers(f"http://{health}/healthz"))

    def _is_ready(self) -> bool:
        found = self.api().find("Node", NAME)
        conditions = found["status"].get("conditions", []) if found else []
        return any(condition["type"] == "Ready" and condition["status"] == "True" for condition in conditions)


def _run(*command: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(command, check=False, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)


def _answers(url: str) -> bool:
    try:
        return urllib3.request("GET", url, timeout=2, retries=False).status == 200
    except urllib3.exceptions.HTTPError:
        return False


def _check_machine() -> None:
    if os.geteuid() != 0:
        raise NodeImpossible("a node needs root; run as root, or set KUBECONFIG to a cluster of yours")
    missing = [program for program in PROGRAMS if shutil.which(program) is None]
    if missing or not Path(node_files.CNI_PLUGINS).is_dir():
        raise NodeImpossible(
            f"missing {' '.join(missing) or node_files.CNI_PLUGINS}; on Debian: apt install $(cat {PACKAGES})"
        )


def _network_up(folder: Path) -> None:
    forward = Path("/proc/sys/net/ipv4/ip_forward")
    (folder / "ip_forward").write_text(forward.read_text())
    if _run("ip", "link", "show", BRIDGE).returncode:
        _run("ip", "link", "add", BRIDGE, "type", "bridge")
    length = node_files.POD_RANGE.split("/")[1]
    _run("ip", "addr", "replace", f"{Node.address}/{length}", "dev", BRIDGE)
    _run("ip", "link", "set", BRIDGE, "up")
    forward.write_text("1")


def _network_down(folder: Path) -> None:
    if _run("ip", "link", "show", BRIDGE).returncode == 0:
        for namespace in _pod_namespaces():
            _run("ip", "netns", "delete", namespace)
        _run("ip", "link", "delete", BRIDGE)
        _run(str(binary("kube-proxy")), "--cleanup")
        _remove_kubelet_chain()
    for result in Path("/var/lib/cni/results").glob("dram-*-eth0"):
        result.with_name(f"cni-loopback-{result.name.split('-')[1]}-lo").unlink(missing_ok=True)
        result.unlink()
    saved = folder / "ip_forward"
    if saved.exists():
        Path("/proc/sys/net/ipv4/ip_forward").write_text(saved.read_text())


def _remove_kubelet_chain() -> None:
    """What kubelet puts into both firewalls, whatever its settings, and nobody takes out."""
    for program in ("iptables", "ip6tables"):
        for chain in ("INPUT", "OUTPUT"):
            _run(program, "-D", chain, "-j", "KUBE-FIREWALL")
        _run(program, "-F", "KUBE-FIREWALL")
        _run(program, "-X", "KUBE-FIREWALL")


def _pod_namespaces() -> list[str]:
    """The network namespaces that hold an address of our pods."""
    prefix = node_files.ADDRESS.rsplit(".", 2)[0] + "."
    named = [line.split()[0] for line in _run("ip", "netns", "list").stdout.splitlines() if line.startswith("cni-")]
    return [name for name in named if f"inet {prefix}" in _run("ip", "-n", name, "addr").stdout]


def _shims(folder: Path) -> list[psutil.Process]:
    """The parents of our containers: they outlive containerd, and name its socket."""
    socket = str(folder / "containerd.sock")
    return [
        process
        for process in psutil.process_iter(["name", "cmdline"])
        if (process.info["name"] or "").startswith("containerd-shim")
        and socket in " ".join(process.info["cmdline"] or [])
    ]


def _kill_tree(process: psutil.Process) -> None:
    try:
        family = [*process.children(recursive=True), process]
    except psutil.NoSuchProcess:
        return
    for member in family:
        try:
            member.kill()
        except psutil.NoSuchProcess:
            continue
    psutil.wait_procs(family, timeout=10)


def _unmount(folder: Path) -> None:
    mounts = [line.split()[1] for line in Path("/proc/mounts").read_text().splitlines()]
    for mount in sorted((mount for mount in mounts if mount.startswith(f"{folder}/")), reverse=True):
        _run("umount", "--lazy", mount)


def main(arguments: list[str]) -> None:
    """The command line."""
    node = Node()
    match arguments:
        case ["up"]:
            node.down()
            node.up()
            sys.stdout.write(f"export KUBECONFIG={node.kubeconfig}\n")
        case ["down"]:
            node.down()
        case ["load", image]:
            node.load(image)
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main(sys.argv[1:])
