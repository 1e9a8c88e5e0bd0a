"""Run in the agent's place: what would a stolen agent be able to do? Writes what worked to its state folder. Standard library only."""

import ctypes
import json
import os
import socket
import stat
import subprocess
from collections.abc import Callable
from pathlib import Path

NEW_USER_NAMESPACE = 0x10000000
STATE = Path("/var/lib/dram")
LIBC = ctypes.CDLL(None, use_errno=True)


def system(name: str, *arguments: object) -> None:
    """A call of the C library; OSError where it is refused."""
    if getattr(LIBC, name)(*arguments) < 0:
        raise OSError(ctypes.get_errno(), name)


def set_user_id_bit() -> None:
    file = STATE / "program"
    file.touch()
    file.chmod(0o755 | stat.S_ISUID)


def see_others() -> None:
    pids = [each for each in Path("/proc").iterdir() if each.name.isdigit()]
    if all(each.stat().st_uid == os.getuid() for each in pids):
        raise OSError("nobody else")


def become_root() -> None:
    told = subprocess.run(["/usr/local/bin/id", "-u"], check=False, capture_output=True, text=True)
    if told.stdout.strip() != "0":
        raise OSError("still myself")


TRIES: dict[str, Callable[[], object]] = {
    "write /var/lib/dram": lambda: (STATE / "file").write_text("x"),
    "open a TCP socket": lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM).close(),
    "write /etc/dram": lambda: Path("/etc/dram/agent.yaml").write_text("x"),
    "read temporary files of others": lambda: Path("/var/tmp/theirs").read_text(),  # noqa: S108 -- theirs, not ours
    "read /home": lambda: list(Path("/home").iterdir()),
    "see processes of others": see_others,
    "open a device": lambda: Path("/dev/board").open("rb").close(),
    "make a namespace": lambda: system("unshare", NEW_USER_NAMESPACE),
    "open a netlink socket": lambda: socket.socket(socket.AF_NETLINK, socket.SOCK_RAW).close(),
    "set the user id bit": set_user_id_bit,
    "become root": become_root,
    "trace": lambda: system("ptrace", 0, 0, None, None),
    "change the personality": lambda: system("personality", 0x0008),
}


def works(attempt: Callable[[], object]) -> bool:
    try:
        attempt()
    except OSError:
        return False
    return True


if __name__ == "__main__":
    (STATE / "probe.json").write_text(json.dumps({name: works(attempt) for name, attempt in TRIES.items()}))
