"""Clearing: what a rollout names, a signed document offers or a reader may still fetch stays; everything else goes."""

from datetime import UTC, datetime, timedelta

import pytest

from dram_agent.document import Artifact, Release, Requirements
from dram_operator.adapters.releases.roles import channel_path
from dram_operator.adapters.releases.signing import manifest_path
from dram_operator.adapters.releases.unneeded import Cleared, clear
from dram_operator.errors import RepositoryInvalid
from tests.agent.documents import a_document
from tests.operator.adapters.releases.installation import Device, Installation
from tests.operator.adapters.releases.test_desk import a_desk

BOT = channel_path("tv", "support-bot")
LATER = datetime.now(UTC) + timedelta(days=400)
"""The server stamps objects with its own clock, so clearing is told a time far behind all of them."""


def released(installation: Installation, *names: str) -> list[str]:
    """Signed and committed artifacts."""
    digests = [installation.upload(model=name.encode()) for name in names]
    installation.signer().sign(digests)
    installation.repository().renew()
    return digests


def a_release(digest: str) -> Release:
    requires = Requirements(format="gguf", memory_bytes=1, agent_version="0")
    return Release(digest=digest, artifacts=(Artifact(path=f"artifacts/{digest}/manifest.json", requires=requires),))


def cleared(installation: Installation, *needed: str, now: datetime = LATER, key: str | None = "release") -> Cleared:
    return clear(a_desk(installation, key), installation.repository(), needed, now)


def uploads(installation: Installation) -> set[str]:
    return {each.key.split("/")[2] for each in installation.bucket.list("targets/artifacts/")}


def test_what_nobody_needs_is_withdrawn_and_its_files_go_once_no_reader_can_ask(installation: Installation) -> None:
    kept, gone = released(installation, "kept", "gone")
    assert cleared(installation, kept).withdrawn == (gone,)
    device = Device(installation)
    assert device.read(manifest_path(gone)) is None
    assert device.read(f"artifacts/{kept}/model") == b"kept"
    for _ in range(2):
        installation.clock.pass_time(days=1)
        installation.repository().renew()
    assert cleared(installation, kept).withdrawn == ()
    assert uploads(installation) == {kept}
    assert Device(installation).read(f"artifacts/{kept}/model") == b"kept"


def test_what_a_signed_document_offers_stays_although_no_status_names_it(installation: Installation) -> None:
    stable, candidate, gone = released(installation, "stable", "candidate", "gone")
    document = a_document(stable=a_release(stable), candidate=a_release(candidate))
    installation.repository().publish({BOT: document.encode()})
    assert cleared(installation).withdrawn == (gone,)
    assert a_desk(installation).signed() == {stable, candidate}


def test_a_document_that_cannot_be_read_stops_the_clearing(installation: Installation) -> None:
    (digest,) = released(installation, "stable")
    installation.repository().publish({BOT: b"{}"})
    with pytest.raises(RepositoryInvalid, match="nobody knows what it needs"):
        cleared(installation)
    assert a_desk(installation).signed() == {digest}


def test_what_is_young_stays(installation: Installation) -> None:
    waiting = installation.upload(model=b"waiting")
    (signed,) = released(installation, "signed")
    assert cleared(installation, now=datetime.now(UTC) + timedelta(days=29)).withdrawn == ()
    assert uploads(installation) == {waiting, signed}


def test_what_was_never_signed_goes_at_once_unless_it_is_needed(installation: Installation) -> None:
    needed, gone = installation.upload(model=b"needed"), installation.upload(model=b"gone")
    found = cleared(installation, needed)
    assert found.withdrawn == ()
    assert {key.split("/")[2] for key in found.deleted if key.startswith("targets/artifacts/")} == {gone}
    assert uploads(installation) == {needed}


def test_without_the_release_key_nothing_signed_is_touched(installation: Installation) -> None:
    (signed,) = released(installation, "signed")
    assert cleared(installation, key=None).withdrawn == ()
    assert a_desk(installation).signed() == {signed}
    assert Device(installation).read(f"artifacts/{signed}/model") == b"signed"
