"""The release repository as rollouts share it, over a real S3 server."""

import asyncio
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import pytest

from dram_agent.document import ChannelDocument
from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
from dram_operator.adapters.releases.state import Versions
from dram_operator.adapters.resources import Object
from dram_operator.errors import Conflict, NotFound, OperatorError, SettingsInvalid
from dram_operator.runtime.rollouts.floor import ANNOTATION, Floor
from dram_operator.runtime.rollouts.releases import FRESH_SECONDS, Releases, Signed, open_repository
from dram_operator.runtime.rollouts.switch import Switch
from dram_operator.settings import Settings
from tests.cluster.s3 import S3Server
from tests.operator.adapters.releases.installation import Installation

CHANNEL = "tv/bot"


@pytest.fixture
def installation(s3_server: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Installation:
    for name, value in s3_server.owner.environment().items():
        monkeypatch.setenv(name, value)
    return Installation.begin(s3_server.endpoint, s3_server.bucket("releases"), tmp_path / "keys")


class Lease:
    """The one object that a floor stands in."""

    def __init__(self, annotations: dict[str, str] | None = None) -> None:
        self.annotations, self.writes = annotations or {}, 0

    async def get(self, *_: Any) -> Object:
        return {"metadata": {"annotations": self.annotations}}

    async def patch(self, *args: Any) -> Object:
        self.annotations |= args[3]["metadata"]["annotations"]
        self.writes += 1
        return {}


class NoLease(Lease):
    async def get(self, *_: Any) -> Object:
        raise NotFound("there is none")


def a_floor(lease: Lease | None = None) -> Floor:
    return Floor(cast("Kubernetes", lease or NoLease()), "dram-system", "dram-operator")


@dataclass
class Ticks:
    now: float = 0.0

    def __call__(self) -> float:
        return self.now


def shared(installation: Installation, ticks: Ticks | None = None, bucket: Bucket | None = None) -> Releases:
    return Releases(installation.repository(bucket), a_floor(), ticks or Ticks())


def a_document(attempt: int = 1) -> ChannelDocument:
    times = {"poll_seconds": 300, "active_poll_seconds": 60, "backoff_seconds": 3600, "candidate_lease_seconds": 86_400}
    return ChannelDocument(channel=CHANNEL, attempt=attempt, salt="00", **times)  # type: ignore[arg-type]


async def test_what_is_published_is_what_is_signed(installation: Installation) -> None:
    releases = shared(installation)
    assert await releases.signed(CHANNEL) == Signed()
    await releases.publish(CHANNEL, a_document(), None)
    signed = await releases.signed(CHANNEL)
    assert (signed.document, signed.problem, signed.is_read) == (a_document(), "", True)


async def test_an_operator_that_was_overtaken_publishes_nothing_however_late(installation: Installation) -> None:
    old, new = shared(installation), shared(installation)
    seen = await old.signed(CHANNEL)
    await new.publish(CHANNEL, a_document(2), (await new.signed(CHANNEL)).digest)
    with pytest.raises(Conflict):
        await old.publish(CHANNEL, a_document(1), seen.digest)
    assert (await old.signed(CHANNEL)).document == a_document(2)


async def test_documents_that_wait_for_each_other_are_committed_together(installation: Installation) -> None:
    releases, before = shared(installation), installation.repository().read().timestamp.version
    channels = [f"tv/bot-{number}" for number in range(8)]
    made = [a_document().model_copy(update={"channel": channel}) for channel in channels]
    await asyncio.gather(*(releases.publish(channel, one, None) for channel, one in zip(channels, made, strict=True)))
    assert [(await releases.signed(channel)).document for channel in channels] == made
    assert installation.repository().read().timestamp.version <= before + 2


async def test_a_reading_holds_for_all_rollouts_for_a_while(installation: Installation) -> None:
    ticks = Ticks()
    first, other = shared(installation, ticks), shared(installation)
    await first.signed(CHANNEL)
    await other.publish(CHANNEL, a_document(), None)
    assert (await first.signed(CHANNEL)).document is None
    ticks.now += FRESH_SECONDS + 1
    assert (await first.signed(CHANNEL)).document == a_document()


async def test_a_bucket_that_does_not_answer_is_waited_for_once(installation: Installation) -> None:
    ticks = Ticks()
    nobody = Bucket(BucketSettings("s3://releases", "http://127.0.0.1:9"))
    releases = shared(installation, ticks, nobody)
    first = await releases.signed(CHANNEL)
    assert not first.is_read
    assert "127.0.0.1:9" in first.problem
    ticks.now += FRESH_SECONDS + 1
    again = asyncio.ensure_future(releases.signed(CHANNEL))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert again.done(), "it asks on in the background"
    await asyncio.gather(*(task for task in asyncio.all_tasks() if task is not asyncio.current_task()))


async def test_a_refused_publication_is_the_channels_problem_until_it_is_written(installation: Installation) -> None:
    wrong = replace(installation).repository()
    wrong._operator = installation.folder.key("targets")
    releases = Releases(wrong, a_floor(), Ticks())
    with pytest.raises(OperatorError):
        await releases.publish(CHANNEL, a_document(), None)
    assert "rotated out" in (await releases.signed(CHANNEL)).problem
    assert (await releases.signed("tv/other")).problem == ""
    wrong._operator = installation.folder.key("operator")
    await releases.publish(CHANNEL, a_document(), None)
    assert (await releases.signed(CHANNEL)).problem == ""


async def test_a_document_that_this_operator_cannot_read_is_a_problem(installation: Installation) -> None:
    installation.repository().publish({f"channels/{CHANNEL}.json": b'{"schemaVersion": 2}'})
    signed = await shared(installation).signed(CHANNEL)
    assert not signed.is_read
    assert "cannot be read" in signed.problem


class TestFloor:
    async def test_it_only_grows_and_is_written_when_it_does(self) -> None:
        lease = Lease()
        floor = a_floor(lease)
        await floor.see(Versions(root=2, sequence=5))
        await floor.see(Versions(root=1, sequence=5))
        assert lease.writes == 1
        assert await a_floor(lease).versions() == Versions(root=2, sequence=5)

    @pytest.mark.parametrize("text", ["", "[]", "{", '{"sequence": "x"}', '{"unknown": 1}'])
    async def test_what_cannot_be_read_counts_as_absent(self, text: str) -> None:
        assert await a_floor(Lease({ANNOTATION: text})).versions() == Versions()

    async def test_without_a_lease_there_is_none(self) -> None:
        assert await a_floor().versions() == Versions()


class TestSwitch:
    @pytest.mark.parametrize(
        ("text", "is_on"),
        [("true\n", True), ("false", False), ("", False), ("FALSE\n", False), ("yes", True), ("?", True)],
    )
    def test_whatever_it_says_but_false_freezes(self, tmp_path: Path, text: str, is_on: bool) -> None:
        path = tmp_path / "frozen"
        path.write_text(text)
        assert Switch(path).is_on() is is_on

    def test_a_file_that_is_not_there_freezes_nothing(self, tmp_path: Path) -> None:
        assert not Switch(tmp_path / "frozen").is_on()
        assert not Switch(None).is_on()

    def test_a_file_that_cannot_be_read_freezes(self, tmp_path: Path) -> None:
        assert Switch(tmp_path).is_on()


class TestOpening:
    def settings(self, installation: Installation, **changed: Any) -> Settings:
        keys = installation.folder.path
        given = {"releases_root": keys / "roots" / "1.root.json", "releases_operator_key": keys / "operator.pem"}
        values: dict[str, Any] = {"releases_uri": installation.settings.uri, **given, **changed}
        return Settings(**values)

    def test_without_a_bucket_there_is_none(self, installation: Installation) -> None:
        assert open_repository(Settings(), installation.clock) is None

    @pytest.mark.parametrize("name", ["releases_root", "releases_operator_key"])
    def test_a_file_that_cannot_be_read_is_named(self, installation: Installation, tmp_path: Path, name: str) -> None:
        settings = self.settings(installation, **{name: tmp_path / "absent"})
        with pytest.raises(SettingsInvalid, match="absent"):
            open_repository(settings, installation.clock)
