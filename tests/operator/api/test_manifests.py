"""YAML as the API server reads it."""

import io
from pathlib import Path

import pytest

from dram_operator.api.manifests import STDIN, ManifestError, load_manifests, parse_value


def _load(tmp_path: Path, text: str) -> list[dict[str, object]]:
    file = tmp_path / "job.yaml"
    file.write_text(text)
    return load_manifests(file)


def test_reads_several_documents_and_leaves_empty_ones_out(tmp_path: Path) -> None:
    assert _load(tmp_path, "---\na: 1\n---\n---\nb: 2\n") == [{"a": 1}, {"b": 2}]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("3e-4", 3e-4),
        ("1", 1),
        ("-1.5", -1.5),
        (".5", 0.5),
        ("true", True),
        ("null", None),
        ("1:30", "1:30"),
        ("2026-01-01", "2026-01-01"),
        ("0x10", "0x10"),
        ("4Gi", "4Gi"),
        ("'1'", "1"),
    ],
)
def test_values_have_the_types_of_json(tmp_path: Path, text: str, want: object) -> None:
    assert _load(tmp_path, f"a: {text}") == [{"a": want}]
    assert parse_value(text) == want


def test_merged_keys_may_be_overridden(tmp_path: Path) -> None:
    text = "base: &base {a: 1, b: 2}\nmade:\n  <<: *base\n  b: 3\n"
    assert _load(tmp_path, text)[0]["made"] == {"a": 1, "b": 3}


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("a: 1\nb: 2\na: 3\n", "line 3: key 'a' stands here twice"),
        ("a:\n  b: 1\n  b: 2\n", "line 3: key 'b' stands here twice"),
        ("1: a\n", "line 1: key 1 is not a text"),
        ("a: [1\n", "line 2: "),
        ("- a\n", "a manifest is a mapping of fields"),
        ("", "is empty"),
        ("a: \x07\n", "unacceptable character"),
    ],
)
def test_refuses_with_the_line(tmp_path: Path, text: str, want: str) -> None:
    with pytest.raises(ManifestError, match=r"job\.yaml: ") as refused:
        _load(tmp_path, text)
    assert want in str(refused.value)


def test_says_that_a_file_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(ManifestError, match=r"none\.yaml: cannot be read: No such file or directory"):
        load_manifests(tmp_path / "none.yaml")


def test_says_that_a_file_is_no_text(tmp_path: Path) -> None:
    (tmp_path / "job.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ManifestError, match="is not UTF-8 text"):
        load_manifests(tmp_path / "job.yaml")


def test_reads_standard_input(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("a: 1"))
    assert load_manifests(STDIN) == [{"a": 1}]


def test_a_value_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(ManifestError, match="is no YAML value"):
        parse_value("[1")
