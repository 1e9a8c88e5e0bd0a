import os
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from dram_operator.api.status import DistillationJobStatus
from dram_operator.local import workdir as module
from dram_operator.local.workdir import Workdir, WorkdirBusy

HOLDER = """
import sys
from pathlib import Path
from dram_operator.local.workdir import Workdir
with Workdir(Path(sys.argv[1]), "job").lock() as lock:
    {body}
"""
WAIT = "print('locked', flush=True); sys.stdin.read()"
LEAVE_AN_ORPHAN = """
    import os, subprocess
    orphan = subprocess.Popen([sys.executable, "-c", "input()"], pass_fds=(lock,))
    Workdir.note(lock, orphan.pid)
    print(orphan.pid, flush=True)
    os.kill(os.getpid(), 9)
"""


def start(parent: Path, body: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLDER.format(body=body), str(parent)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def first_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


def test_the_status_comes_back_as_it_was_written(tmp_path: Path) -> None:
    workdir = Workdir(tmp_path, "job")
    workdir.root.mkdir()
    assert workdir.read_status() == DistillationJobStatus()
    workdir.write_status(DistillationJobStatus(run=3, gate="Pass"))
    assert workdir.read_status() == DistillationJobStatus(run=3, gate="Pass")
    assert [file.name for file in workdir.root.iterdir()] == ["status.json"]


def test_a_second_run_in_the_folder_is_refused_and_told_who_is_there(tmp_path: Path) -> None:
    with start(tmp_path, WAIT) as holder:
        assert first_line(holder) == "locked"
        with pytest.raises(WorkdirBusy, match=f"process {holder.pid} is at work"), Workdir(tmp_path, "job").lock():
            pytest.fail("two runs at work in one folder")
        holder.communicate("")
    with Workdir(tmp_path, "job").lock():
        pass


def test_another_job_in_the_same_workdir_is_free(tmp_path: Path) -> None:
    with Workdir(tmp_path, "one").lock(), Workdir(tmp_path, "two").lock():
        assert sorted(path.name for path in tmp_path.iterdir()) == ["one", "two"]


def test_the_worker_of_a_killed_run_is_gone_before_the_next_one_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "ORPHANS_SECONDS", 0.0)
    with start(tmp_path, LEAVE_AN_ORPHAN) as killed:
        orphan = psutil.Process(int(first_line(killed)))
        killed.wait()
        assert orphan.is_running()
        with Workdir(tmp_path, "job").lock() as lock:
            assert not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE
            assert os.pread(lock, 100, 0).split() == [str(os.getpid()).encode()]
