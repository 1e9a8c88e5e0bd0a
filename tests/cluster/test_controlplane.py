"""The control plane that other tests rely on."""

import json
import subprocess
import sys
import textwrap
from pathlib import Path

import psutil
import pytest

from tests.cluster import audit
from tests.cluster.api import ApiError, wait_until
from tests.cluster.audit import Access
from tests.cluster.controlplane import ControlPlane
from tests.cluster.folders import cache_folder
from tests.cluster.processes import fresh_folder


def test_a_user_may_do_what_its_rules_say_and_the_audit_log_tells_what_it_asked(control_plane: ControlPlane) -> None:
    rules = [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["list"]}]
    reader = control_plane.api(control_plane.kubeconfig_for("reader", rules))

    reader.list("ConfigMap", "default")
    with pytest.raises(ApiError) as refused:
        reader.list("Secret", "default")

    assert refused.value.status == 403
    assert control_plane.audit_verbs("reader") == {Access("", "configmaps", "list"), Access("", "secrets", "list")}
    assert audit.refused(control_plane.audit_log, "reader") == ["list secrets in default"]
    assert audit.places(control_plane.audit_log, "reader", "configmaps") == {"default"}
    assert "reader" in audit.users(control_plane.audit_log)


def test_the_audit_log_leaves_out_who_nobody_knows(control_plane: ControlPlane, tmp_path: Path) -> None:
    known = control_plane.service_account_kubeconfig("default", "known").read_text()
    stranger = tmp_path / "kubeconfig"
    stranger.write_text(known.replace(json.loads(known)["users"][0]["user"]["token"], "forged"))

    with pytest.raises(ApiError) as refused:
        control_plane.api(stranger).list("Secret", "default")

    assert refused.value.status == 401
    wait_until(lambda: '"user":{}' in control_plane.audit_log.read_text(), "the request in the audit log")
    assert "" not in audit.users(control_plane.audit_log)


def test_a_service_account_gets_a_token_that_the_server_reviews(control_plane: ControlPlane) -> None:
    kubeconfig = control_plane.service_account_kubeconfig("default", "runner")
    token = json.loads(kubeconfig.read_text())["users"][0]["user"]["token"]

    review = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "metadata": {}, "spec": {"token": token}}
    status = control_plane.api().create(review)["status"]

    assert status["authenticated"]
    assert status["user"]["username"] == "system:serviceaccount:default:runner"


def test_the_next_run_ends_what_a_killed_run_left() -> None:
    program = textwrap.dedent("""
        import os, signal, sys
        from tests.cluster.processes import Processes, fresh_folder
        folder = fresh_folder("killed")
        print(folder, Processes(folder).start("sleep", ["sleep", "600"]), flush=True)
        os.kill(os.getpid(), signal.SIGKILL)
    """)
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    folder, pid = run.stdout.split()
    assert psutil.pid_exists(int(pid))

    fresh_folder("next").rmdir()

    assert not psutil.pid_exists(int(pid)) or psutil.Process(int(pid)).status() == psutil.STATUS_ZOMBIE
    assert folder not in [str(path) for path in cache_folder("run").iterdir()]
