"""Where the control plane's programs come from."""

from pathlib import Path

import pytest

from tests.cluster.binaries import MODULES, BinaryMissing, binary, kubernetes_version


@pytest.fixture
def bare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine with an empty cache and nothing on PATH."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    (tmp_path / "bin").mkdir()
    return tmp_path


def a_program(path: Path) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.touch(mode=0o755)
    return path


def test_the_assets_folder_comes_first(bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    a_program(bare / "bin" / "etcd")
    given = a_program(bare / "assets" / "etcd")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(bare / "assets"))
    assert binary("etcd") == given


def test_what_is_on_the_path_is_taken(bare: Path) -> None:
    found = a_program(bare / "bin" / "etcd")
    assert binary("etcd") == found


def test_a_node_part_of_another_version_is_not_taken_from_the_path(bare: Path) -> None:
    a_program(bare / "bin" / "kubelet")
    with pytest.raises(BinaryMissing):
        binary("kubelet")


def test_without_go_the_message_says_what_to_install(bare: Path) -> None:
    with pytest.raises(BinaryMissing, match=r"Install Go .* or point KUBEBUILDER_ASSETS at a folder"):
        binary("kube-apiserver")


def test_kubectl_is_of_the_cluster_s_version() -> None:
    assert f"k8s.io/kubernetes {kubernetes_version()}\n" in (MODULES / "kubectl" / "go.mod").read_text()
