"""The channel document on the wire."""

import json
from typing import Any

import pytest
from pydantic import ValidationError

from dram_agent.document import ChannelDocument, Cohort, Control, Release
from tests.agent.documents import ALL, NEW, OLD, a_document, a_release, an_artifact

FULL = a_document(
    cohorts=(Cohort(hashes=(ALL,)), Cohort(cutoff=ALL, match_labels={"ring": "früh"})),
    control=Control(cutoff=ALL),
    candidate=a_release(NEW, "tv", None),
    denied=("cc" * 32,),
    frozen=True,
)


@pytest.mark.parametrize("document", [FULL, a_document(), a_document(stable=None, candidate=None)])
def test_it_survives_the_wire(document: ChannelDocument) -> None:
    assert ChannelDocument.decode(document.encode()) == document


def test_equal_documents_have_equal_bytes() -> None:
    one, other = ({"a": "1", "b": "2"}, {"b": "2", "a": "1"})
    first, second = (a_document(cohorts=(Cohort(cutoff=ALL, match_labels=labels),)) for labels in (one, other))
    assert first == second
    assert first.encode() == second.encode()
    assert b": " not in FULL.encode()


def test_its_bytes_are_what_older_agents_read() -> None:
    value = json.loads(a_document().encode())
    artifact = {
        "deviceClass": None,
        "path": f"artifacts/{OLD}/manifest.json",
        "requires": {"format": "gguf", "memoryBytes": 1048576, "agentVersion": "0.1"},
    }
    assert value["stable"] == {"digest": OLD, "artifacts": [artifact]}
    assert {key: part for key, part in value.items() if key not in ("stable", "candidate")} == {
        "schemaVersion": 1,
        "channel": "tv/support-bot",
        "attempt": 1,
        "salt": "6472616d",
        "cohorts": [],
        "control": None,
        "denied": [],
        "pollSeconds": 300,
        "activePollSeconds": 60,
        "backoffSeconds": 3600,
        "candidateLeaseSeconds": 86400,
        "withdrawing": False,
        "frozen": False,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("schemaVersion", 2),
        ("unknown", 1),
        ("channel", "support-bot"),
        ("channel", "tv/../x"),
        ("salt", "xyz"),
        ("salt", "abc"),
        ("denied", ["AA" * 32]),
        ("cohorts", [{"cutoff": "ff"}]),
        ("cohorts", [{"cutoff": "F" * 16}]),
        ("control", {"cutoff": None}),
        ("pollSeconds", 0),
        ("attempt", -1),
        ("stable", {"digest": "aa" * 32, "artifacts": []}),
    ],
)
def test_anything_else_is_refused(field: str, value: Any) -> None:
    document = json.loads(a_document().encode()) | {field: value}
    with pytest.raises(ValidationError):
        ChannelDocument.decode(json.dumps(document).encode())


@pytest.mark.parametrize("path", ["artifacts/x/manifest.json", f"artifacts/{NEW}/../x", f"/artifacts/{NEW}/x"])
def test_an_artifact_lies_under_its_digest(path: str) -> None:
    artifact = an_artifact().model_dump(by_alias=True) | {"path": path}
    with pytest.raises(ValidationError):
        Release.model_validate({"digest": NEW, "artifacts": [artifact]})


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff"])
def test_what_is_no_document_is_a_value_error(body: bytes) -> None:
    with pytest.raises(ValueError, match="ChannelDocument"):
        ChannelDocument.decode(body)


@pytest.mark.parametrize(
    ("classes", "device_class", "want"),
    [
        ((None,), "tv", None),
        ((None,), None, None),
        (("tv", None), "tv", "tv"),
        ((None, "tv"), "tv", "tv"),
        (("tv", None), "radio", None),
    ],
)
def test_a_device_takes_the_build_of_its_class(
    classes: tuple[str | None, ...], device_class: str | None, want: str | None
) -> None:
    artifact = a_release(NEW, *classes).artifact_for(device_class)
    assert artifact
    assert artifact.device_class == want


def test_a_class_without_a_build_has_none() -> None:
    assert a_release(NEW, "tv").artifact_for("radio") is None
