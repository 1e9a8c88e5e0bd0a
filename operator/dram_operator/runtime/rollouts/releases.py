"""The release repository as all rollouts of a replica share it: what is signed, and the one way to sign anew.

boto3 is loaded only where there is a repository. Requests run in threads; what one of them finds, good or bad, holds for all rollouts for a few seconds,
so that an outage of the bucket costs each of them no more than the first one's wait.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import ValidationError

from dram_agent.document import ChannelDocument
from dram_operator.errors import Conflict, OperatorError, RepositoryInvalid, SettingsInvalid, Unavailable
from dram_operator.runtime.rollouts.floor import Floor
from dram_operator.settings import Settings, variable

if TYPE_CHECKING:
    from dram_operator.adapters.releases.bucket import Bucket
    from dram_operator.adapters.releases.repository import Expiries, ReleaseRepository
    from dram_operator.adapters.releases.state import Committed

log = logging.getLogger(__name__)

FRESH_SECONDS = 5.0
"""How long a reading holds. Other writers are met by the condition of the next publication, however old the reading is."""
RENEW_SECONDS = 60.0
"""How often to look for what is due to be signed again, or was signed offline."""


@dataclass(frozen=True)
class Signed:
    """A channel's document as devices get it."""

    document: ChannelDocument | None = None
    digest: str | None = None
    """SHA-256 of its bytes; None when nothing is signed."""
    problem: str = ""
    """Why the repository cannot be read, or was not written; empty when all is well."""
    is_read: bool = True
    """Whether this is what is signed now; otherwise it is what was known last, and nothing can be put in its place."""


NO_REPOSITORY = Signed(
    is_read=False,
    problem=f"this installation has no release repository: set releases.uri in the chart, or {variable('releases_uri')}",
)


@dataclass
class _State:
    """What is known of the repository."""

    committed: "Committed | None" = None
    problem: str = ""
    read_at: float | None = None
    """On the clock that nobody sets; None when it has to be read anew."""
    documents: dict[str, Signed] = field(default_factory=dict)
    """By channel."""
    refused: dict[str, str] = field(default_factory=dict)
    """Why a channel's document was not written, by channel."""


@dataclass(frozen=True)
class _Wish:
    """A document that waits to be signed."""

    body: bytes
    replacing: str | None
    done: "asyncio.Future[None]"


class Releases:
    """Reads, publishes and signs again; commits of one process follow each other."""

    def __init__(self, repository: "ReleaseRepository", floor: Floor, ticks: Callable[[], float]) -> None:
        self._repository = repository
        self._floor = floor
        self._ticks = ticks
        self._state = _State()
        self._reading: asyncio.Task[None] | None = None
        self._wishes: dict[str, _Wish] = {}
        self._committing: asyncio.Task[None] | None = None
        self.expiries: Expiries | None = None
        """When the roles of the repository expire, as of the latest round."""

    async def signed(self, channel: str) -> Signed:
        """A channel's document, and what is wrong with the repository; never raises."""
        state = self._state
        if state.read_at is None or self._ticks() - state.read_at > FRESH_SECONDS:
            self._reading = self._reading or asyncio.create_task(self._read())
            if not state.problem:
                # A repository that did not answer is asked on in the background: nobody waits for it again.
                await asyncio.shield(self._reading)
        known = state.documents.get(channel, Signed())
        if state.problem or state.committed is None:
            return Signed(known.document, known.digest, state.problem, is_read=False)
        try:
            known = await self._document(channel, state.committed)
        except (OperatorError, ValidationError) as error:
            return Signed(known.document, known.digest, f"the signed document cannot be read: {error}", is_read=False)
        return Signed(known.document, known.digest, state.refused.get(channel, ""))

    async def publish(self, channel: str, document: ChannelDocument, replacing: str | None) -> None:
        """Sign a document in place of the one that was decided on. Conflict when that is no longer the one that is signed.

        Documents that are waiting while a commit is made go into the next one together. Every other OperatorError is also
        told as the channel's problem, until it is written.
        """
        wish = _Wish(document.encode(), replacing, asyncio.get_running_loop().create_future())
        self._wishes[channel] = wish
        self._committing = self._committing or asyncio.create_task(self._commit())
        try:
            await asyncio.shield(wish.done)
        except Conflict:
            raise
        except OperatorError as error:
            self._state.refused[channel] = str(error)
            raise
        self._state.refused.pop(channel, None)

    async def _commit(self) -> None:
        """Commit what is waiting until nothing is."""
        try:
            while self._wishes:
                taken, self._wishes = self._wishes, {}
                error: OperatorError | None = Unavailable("the commit broke off")
                try:
                    error = await self._commit_once(taken)
                finally:
                    for wish in taken.values():
                        _tell(wish, error)
        finally:
            self._committing = None

    async def _commit_once(self, taken: "Mapping[str, _Wish]") -> OperatorError | None:
        documents = {path_of(channel): wish.body for channel, wish in taken.items()}
        replacing = {path_of(channel): wish.replacing for channel, wish in taken.items()}
        try:
            floor = await self._floor.versions()
            versions = await asyncio.to_thread(self._repository.publish, documents, floor, replacing)
        except OperatorError as error:
            return error
        finally:
            self._state.read_at = None
        await self._floor.see(versions)
        return None

    def forget(self, channel: str) -> None:
        """The rollout is gone."""
        self._state.documents.pop(channel, None)
        self._state.refused.pop(channel, None)

    async def run(self, wake_all: Callable[[], None]) -> None:
        """Sign again what is due, until cancelled; `wake_all` is called when the repository begins or ceases to be wrong."""
        problem = ""
        while True:
            found = await self._renew()
            if found != problem:
                problem, self._state.read_at = found, None
                wake_all()
            await asyncio.sleep(RENEW_SECONDS)

    async def _renew(self) -> str:
        """One round; returns what is wrong."""
        try:
            versions = await asyncio.to_thread(self._repository.renew, await self._floor.versions())
            self.expiries = await asyncio.to_thread(self._repository.expiries)
        except Conflict:
            return ""
        except OperatorError as error:
            log.error("the release repository was not signed again: %s", error)  # noqa: TRY400 -- told, not a fault of ours
            return str(error)
        await self._floor.see(versions)
        return ""

    async def _read(self) -> None:
        state = self._state
        try:
            floor = await self._floor.versions()
            state.committed = await asyncio.to_thread(self._repository.read, floor)
            state.problem = ""
            await self._floor.see(state.committed.versions)
        except OperatorError as error:
            state.problem = str(error)
        finally:
            state.read_at = self._ticks()
            self._reading = None

    async def _document(self, channel: str, committed: "Committed") -> Signed:
        path = path_of(channel)
        digest, known = committed.digest_of(path), self._state.documents.get(channel)
        if digest is None:
            found = Signed()
        elif known and known.digest == digest:
            found = known
        else:
            body = await asyncio.to_thread(self._repository.content, path, digest)
            found = Signed(ChannelDocument.decode(body), digest)
        self._state.documents[channel] = found
        return found


def _tell(wish: _Wish, error: OperatorError | None) -> None:
    if error:
        wish.done.set_exception(error)
        wish.done.exception()  # or it would be reported as lost when who waited for it is gone
    else:
        wish.done.set_result(None)


def path_of(channel: str) -> str:
    """The target path of a channel's document."""
    return f"channels/{channel}.json"


@dataclass(frozen=True)
class Repository:
    """The repository of an installation, opened."""

    bucket: "Bucket"
    root: bytes
    """The pinned root file."""
    releases: "ReleaseRepository"


def open_repository(settings: Settings, clock: Callable[[], datetime]) -> Repository | None:
    """Read root and key; None where the installation has no repository. SettingsInvalid names the file that is wrong."""
    if settings.releases_uri is None or settings.releases_root is None or settings.releases_operator_key is None:
        return None
    from dram_operator.adapters.releases.keys import load_key
    from dram_operator.adapters.releases.repository import ReleaseRepository

    try:
        bucket = open_bucket(settings, settings.releases_uri)
        root = _read_root(settings.releases_root)
        key = load_key(settings.releases_operator_key)
    except OperatorError as error:
        raise SettingsInvalid(f"the release repository: {error}") from error
    return Repository(bucket, root, ReleaseRepository(bucket, root, key, clock))


def open_bucket(settings: Settings, uri: str) -> "Bucket":
    """The repository's bucket, with the credentials of the settings."""
    from dram_operator.adapters.releases.bucket import Bucket, BucketSettings

    secret, token = settings.releases_aws_secret_access_key, settings.releases_aws_session_token
    return Bucket(
        BucketSettings(
            uri,
            settings.releases_endpoint,
            settings.releases_region,
            settings.releases_ca,
            settings.releases_aws_access_key_id,
            secret.get_secret_value() if secret else None,
            token.get_secret_value() if token else None,
        )
    )


def _read_root(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise RepositoryInvalid(
            f"{variable('releases_root')} is {path}, which cannot be read ({error.strerror}): mount the root file that "
            "`dram keys init` wrote"
        ) from error
