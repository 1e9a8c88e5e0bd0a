"""A Linux box for the agent's service: Debian and its systemd as process 1, in namespaces of their own. Root, buildah.

It uses this machine's network, so that a device finds the repository of the test; its files, processes and control groups are its own, and
its kernel settings cannot be written.
"""

import hashlib
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import psutil

from images.build import REPOSITORY, build, buildah, exists
from tests.cluster.folders import cache_folder
from tests.cluster.processes import Processes, fresh_folder

DOCKERFILE = """FROM {agent}
USER 0
ENV PATH=/usr/sbin:/usr/bin:/sbin:/bin
RUN apt-get update && apt-get install --yes --no-install-recommends dbus systemd
"""
BOOT = """
set -e
group=$1 tree=$2
echo $$ > "$group/cgroup.procs"
exec unshare --pid --fork --kill-child --mount --propagation private --uts --ipc --cgroup sh -e -c '
cd "$1"
mount --bind . .
cd "$1"
mount -t proc proc proc
mount --bind proc/sys proc/sys
mount -o remount,bind,ro proc/sys
mount -t sysfs -o ro sysfs sys
mount -t cgroup2 cgroup2 sys/fs/cgroup
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=755 tmpfs dev
for node in full null random tty urandom zero; do touch dev/$node; mount --bind /dev/$node dev/$node; done
mkdir dev/pts dev/shm
mount -t devpts -o newinstance,ptmxmode=0666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs -o mode=1777 tmpfs dev/shm
pivot_root . mnt
umount -l /mnt
exec env -i container=dram PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd
' boot "$tree"
"""
WITHOUT = "to leave it out: make test-long ARGS=--ignore=tests/agent/test_systemd.py"
ENTER = ("-m", "-u", "-i", "-p", "-C", "env", "-i", "PATH=/opt/dram/bin:/usr/sbin:/usr/bin:/sbin:/bin")


class MachineImpossible(RuntimeError):
    """This machine lacks what another one inside it needs."""


class CommandFailed(RuntimeError):
    """A command on the machine ended with an error."""


class Machine:
    """`boot`, `run`, `cut_power`, `boot` again: what was written is still there. `remove` ends it."""

    def __init__(self) -> None:
        _check()
        self._folder = fresh_folder("machine")
        _remove_forgotten()
        self._container = buildah("from", "--pull-never", "--name", self._folder.name, _image()).strip()
        self.tree = Path(buildah("mount", self._container).strip())
        self._processes = Processes(self._folder)
        self._group = _control_groups() / self._folder.name

    def boot(self) -> None:
        """Power on; returns when systemd says that everything is started."""
        self._group.mkdir()
        command = ["sh", "-c", BOOT, "boot", str(self._group), str(self.tree)]
        self._outside = psutil.Process(self._processes.start("machine", command))
        self._processes.wait_ready("machine", self._is_up)

    def cut_power(self) -> None:
        """Every process ends at once, and nothing is told."""
        inside = self._outside.children(recursive=True)
        self._processes.kill("machine")
        psutil.wait_procs(inside)
        for folder in sorted(self._group.rglob("*/"), reverse=True):
            folder.rmdir()
        self._group.rmdir()

    def run(self, *command: str) -> str:
        """Run a command there as root; returns what it wrote. CommandFailed has what it said."""
        done = subprocess.run([*self._inside(), *command], check=False, text=True, capture_output=True)
        if done.returncode:
            raise CommandFailed(f"{' '.join(command)}: {done.stdout}{done.stderr}")
        return done.stdout

    def remove(self) -> None:
        """Power off for ever."""
        if self._outside.is_running():
            self.cut_power()
        buildah("rm", self._container)
        shutil.rmtree(self._folder)

    def _inside(self) -> list[str]:
        (first,) = self._outside.children()
        return ["nsenter", "-t", str(first.pid), *ENTER]

    def _is_up(self) -> bool:
        if [each.name() for each in self._outside.children()] != ["systemd"]:
            return False
        command = [*self._inside(), "systemctl", "is-system-running"]
        done = subprocess.run(command, check=False, text=True, capture_output=True)
        return done.stdout.strip() == "running"


def _image() -> str:
    agent = build("agent")
    image = f"{REPOSITORY}/machine:{hashlib.sha256((DOCKERFILE + agent).encode()).hexdigest()[:12]}"
    if not exists(image):
        with tempfile.TemporaryDirectory(prefix="dram-machine-") as folder:
            file = Path(folder) / "Dockerfile"
            file.write_text(DOCKERFILE.format(agent=agent))
            how = ["--isolation", "chroot", "--network", "host", "--pull-never"]
            buildah("bud", *how, "--file", str(file), "--tag", image, folder)
    return image


def _remove_forgotten() -> None:
    """Roots of machines whose run was killed."""
    for name in buildah("containers", "--noheading", "--format", "{{.ContainerName}}").split():
        if name.startswith("machine-") and not (cache_folder("run") / name).exists():
            buildah("rm", name)


def _control_groups() -> Path:
    """Where this machine has its control groups of version 2; no controller is needed."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    found = [Path(where) for _, where, kind, *_ in mounts if kind == "cgroup2"]
    if not found:
        raise MachineImpossible(f"no control groups of version 2 are mounted; {WITHOUT}")
    return found[0]


def _check() -> None:
    if os.geteuid() != 0:
        raise MachineImpossible(f"a machine inside this one needs root; {WITHOUT}")
    missing = [program for program in ("buildah", "nsenter", "unshare") if shutil.which(program) is None]
    if missing:
        raise MachineImpossible(f"missing {' '.join(missing)}; {WITHOUT}")
