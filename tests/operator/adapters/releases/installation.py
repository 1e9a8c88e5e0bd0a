"""A release repository on the real S3 server, with its keys, an own clock and a standard TUF client."""

import hashlib
import json
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from tempfile import mkdtemp

from tuf.api.exceptions import DownloadHTTPError
from tuf.ngclient import FetcherInterface, Updater

from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
from dram_operator.adapters.releases.ceremony import Ceremony
from dram_operator.adapters.releases.keys import KeyFolder
from dram_operator.adapters.releases.repository import ReleaseRepository
from dram_operator.adapters.releases.roles import target_key
from dram_operator.adapters.releases.signing import ReleaseSigner

START = datetime(2031, 5, 1, 12, tzinfo=UTC)


@dataclass
class Clock:
    """Stands still until it is moved."""

    now: datetime = START

    def __call__(self) -> datetime:
        return self.now

    def pass_time(self, **amount: float) -> None:
        self.now += timedelta(**amount)


class FromBucket(FetcherInterface):
    """Reads what a device would get by HTTP."""

    def __init__(self, bucket: Bucket) -> None:
        self.bucket = bucket
        self.urls: list[str] = []

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.urls.append(url)
        stored = self.bucket.get(url)
        if stored is None:
            raise DownloadHTTPError(f"{url}: 404", 404)
        return iter([stored.body])


@dataclass
class Installation:
    """Keys, bucket and clock of one installation."""

    settings: BucketSettings
    folder: KeyFolder
    clock: Clock = field(default_factory=Clock)
    bucket: Bucket = field(kw_only=True)

    @classmethod
    def begin(cls, endpoint: str, bucket: str, keys: Path) -> "Installation":
        settings = BucketSettings(f"{bucket}/{uuid.uuid4().hex}", endpoint)
        made = cls(settings, KeyFolder(keys), bucket=Bucket(settings))
        made.ceremony().init(root_keys=3, threshold=2)
        return made

    @property
    def first_root(self) -> bytes:
        return (self.folder.path / "roots" / "1.root.json").read_bytes()

    def ceremony(self, bucket: Bucket | None = None) -> Ceremony:
        return Ceremony(bucket or self.bucket, self.folder, self.clock)

    def repository(
        self, bucket: Bucket | None = None, clock: Callable[[], datetime] | None = None
    ) -> ReleaseRepository:
        operator = self.folder.key("operator")
        return ReleaseRepository(bucket or self.bucket, self.first_root, operator, clock or self.clock)

    def signer(self) -> ReleaseSigner:
        return ReleaseSigner(self.bucket, self.first_root, self.folder.key("release"), self.clock)

    def upload(self, **files: bytes) -> str:
        """Put an artifact into the bucket, unsigned; returns its digest."""
        entries = [
            {"path": name, "sha256": hashlib.sha256(body).hexdigest(), "size": len(body)}
            for name, body in sorted(files.items())
        ]
        manifest = json.dumps({"formatVersion": 1, "files": entries}).encode()
        digest = hashlib.sha256(manifest).hexdigest()
        for name, body in [*files.items(), ("manifest.json", manifest)]:
            self.bucket.put(target_key(f"artifacts/{digest}/{name}", hashlib.sha256(body).hexdigest()), body)
        return digest


@dataclass
class Device:
    """A device with the stock TUF client; its cache lives as long as the object."""

    installation: Installation
    cache: Path = field(default_factory=lambda: Path(mkdtemp()))

    def read(self, path: str) -> bytes | None:
        """What a poll now would give for this target; the client's errors are the test's."""
        fetcher = FromBucket(self.installation.bucket)
        (self.cache / "targets").mkdir(exist_ok=True)
        updater = Updater(
            str(self.cache),
            "metadata",
            str(self.cache / "targets"),
            "targets",
            fetcher,
            bootstrap=self.installation.first_root,
        )
        updater._trusted_set.reference_time = self.installation.clock()
        updater.refresh()
        info = updater.get_targetinfo(path)
        return Path(updater.download_target(info)).read_bytes() if info else None
