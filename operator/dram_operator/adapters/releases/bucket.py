"""The bucket of the release repository: an S3 client that knows conditional writes. Credentials are never logged.

Two conditions carry everything: `If-None-Match: *` makes a name that only one writer can take, and `If-Match` replaces
an object only where it is still the one that was read (S3 API, PutObject, conditional requests).
"""

import base64
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, ParamValidationError, ProfileNotFound

from dram_operator.errors import Refused, Unavailable

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client

CONNECT_SECONDS = 5
READ_SECONDS = 30
DELETE_BATCH = 1000
"""The most keys that one DeleteObjects takes."""
ABSENT = {"NoSuchKey", "404", "NotFound"}
LOST = {"PreconditionFailed", "412", "ConditionalRequestConflict"}
"""Another writer was first, or is being first right now."""
NOT_MODIFIED = {"NotModified", "304"}
OVERLOADED = (429, 503)
SERVER_ERROR = 500


class Unchanged(Exception):
    """The object is the one that the caller has."""


class TooLarge(Refused):
    """The object is longer than the caller takes."""


@dataclass(frozen=True)
class BucketSettings:
    """Where the repository lies. Without credentials here, they come from the environment, as the AWS SDK reads it."""

    uri: str
    """`s3://bucket` or `s3://bucket/prefix`."""
    endpoint: str | None = None
    region: str | None = None
    ca_file: Path | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = field(default=None, repr=False)
    session_token: str | None = field(default=None, repr=False)


@dataclass(frozen=True)
class Stored:
    """An object as it was read."""

    body: bytes
    etag: str


@dataclass(frozen=True)
class Head:
    """What the server says of an object."""

    size_bytes: int
    sha256: str | None = None
    """Of the body that it took, where the writer asked for it to be checked."""


@dataclass(frozen=True)
class Listed:
    """One object of a listing."""

    key: str
    size_bytes: int
    modified: datetime


class Bucket:
    """Objects below the prefix of `settings.uri`. Errors are `Unavailable` and `Refused`."""

    def __init__(self, settings: BucketSettings) -> None:
        parts = urlsplit(settings.uri)
        if parts.scheme != "s3" or not parts.netloc:
            raise Refused(f"{settings.uri} is no bucket: write s3://bucket/prefix")
        if settings.endpoint and urlsplit(settings.endpoint).scheme not in ("http", "https"):
            raise Refused(f"{settings.endpoint} is no address of an S3 server: write https://s3.example.com")
        self.uri = settings.uri
        self.endpoint = settings.endpoint
        self._name = parts.netloc
        self._prefix = parts.path.strip("/")
        with _errors(settings.uri):
            self._client = _client(settings)

    def get(self, key: str, *, unless: str | None = None, most_bytes: int | None = None) -> Stored | None:
        """Read an object; None when there is none.

        Unchanged when it still has the ETag `unless`; TooLarge when it has more than `most_bytes`, which are not read.
        """
        asked = {"IfNoneMatch": unless} if unless else {}
        with _errors(self.uri):
            try:
                answer = self._client.get_object(Bucket=self._name, Key=self._key(key), **asked)  # type: ignore[arg-type]
                if most_bytes is not None and answer["ContentLength"] > most_bytes:
                    answer["Body"].close()
                    raise TooLarge(f"{self.uri}/{key} has {answer['ContentLength']} bytes, {most_bytes} are allowed")
            except ClientError as error:
                if _code(error) in ABSENT:
                    return None
                if _code(error) in NOT_MODIFIED:
                    raise Unchanged(key) from error
                raise
            return Stored(answer["Body"].read(), answer["ETag"])

    def size(self, key: str) -> int | None:
        """Bytes of an object; None when there is none."""
        found = self.head(key)
        return None if found is None else found.size_bytes

    def holds(self, key: str, size_bytes: int, sha256: str) -> bool:
        """Whether an object of this size, and of this digest where the server knows it, is there."""
        found = self.head(key)
        return found is not None and found.size_bytes == size_bytes and found.sha256 in (None, sha256)

    def head(self, key: str) -> Head | None:
        """What the server says of an object; None when there is none."""
        with _errors(self.uri):
            try:
                found = self._client.head_object(Bucket=self._name, Key=self._key(key), ChecksumMode="ENABLED")
                checksum = found.get("ChecksumSHA256")
                # of an upload in parts it is the digest of their digests
                whole = checksum if checksum and "-" not in checksum else None
                return Head(found["ContentLength"], base64.b64decode(whole).hex() if whole else None)
            except ClientError as error:
                if _code(error) in ABSENT:
                    return None
                raise

    def chunks(self, key: str, chunk_bytes: int = 1 << 20) -> Iterator[bytes]:
        """Read a large object piece by piece."""
        with _errors(self.uri):
            yield from self._client.get_object(Bucket=self._name, Key=self._key(key))["Body"].iter_chunks(chunk_bytes)

    def put(self, key: str, body: bytes) -> None:
        """Write an object whatever is there: only for names that carry the digest of their content."""
        with _errors(self.uri):
            self._client.put_object(Bucket=self._name, Key=self._key(key), Body=body)

    def create(self, key: str, body: bytes) -> bool:
        """Write an object where there is none; False when the name is taken."""
        with _errors(self.uri), _conditional() as outcome:
            self._client.put_object(Bucket=self._name, Key=self._key(key), Body=body, IfNoneMatch="*")
        return outcome.won

    def replace(self, key: str, body: bytes, etag: str) -> bool:
        """Write an object where it still is the one with this ETag; False when it changed."""
        with _errors(self.uri), _conditional() as outcome:
            self._client.put_object(Bucket=self._name, Key=self._key(key), Body=body, IfMatch=etag)
        return outcome.won

    def list(self, prefix: str) -> Iterator[Listed]:
        """Objects whose key starts with `prefix`."""
        with _errors(self.uri):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self._name, Prefix=self._key(prefix))
            for page in pages:
                for found in page.get("Contents", []):
                    if not found["Key"].endswith("/"):
                        yield Listed(self._relative(found["Key"]), found["Size"], found["LastModified"])

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; absent ones are no error."""
        for start in range(0, len(keys), DELETE_BATCH):
            batch = [{"Key": self._key(key)} for key in keys[start : start + DELETE_BATCH]]
            with _errors(self.uri):
                answer = self._client.delete_objects(Bucket=self._name, Delete={"Objects": batch, "Quiet": True})  # type: ignore[typeddict-item]
            for failed in answer.get("Errors", []):
                raise Refused(f"{self.uri}/{failed.get('Key')}: {failed.get('Message')}", failed.get("Code", ""))

    def grant_upload(self, key: str, sha256: str, seconds: int) -> tuple[str, dict[str, str]]:
        """A URL that takes one PUT of exactly the bytes of this hex digest, and the headers that it must carry."""
        checksum = base64.b64encode(bytes.fromhex(sha256)).decode()
        url = self._client.generate_presigned_url(
            "put_object",
            Params={"Bucket": self._name, "Key": self._key(key), "ChecksumSHA256": checksum},
            ExpiresIn=seconds,
        )
        return url, {"x-amz-checksum-sha256": checksum}

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _relative(self, key: str) -> str:
        return key[len(self._prefix) + 1 :] if self._prefix else key


def _client(settings: BucketSettings) -> "S3Client":
    return boto3.session.Session().client(
        "s3",
        endpoint_url=settings.endpoint,
        region_name=settings.region or ("us-east-1" if settings.endpoint else None),
        verify=str(settings.ca_file) if settings.ca_file else None,
        aws_access_key_id=settings.access_key_id,
        aws_secret_access_key=settings.secret_access_key,
        aws_session_token=settings.session_token,
        config=Config(
            # boto3 signs URLs by version 2 where it is not told otherwise: AWS refuses those in most regions.
            signature_version="s3v4",
            retries={"mode": "standard"},
            connect_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
            s3={"addressing_style": "path" if settings.endpoint else "auto"},
        ),
    )


@dataclass
class _Outcome:
    won: bool = True


@contextmanager
def _conditional() -> Iterator[_Outcome]:
    outcome = _Outcome()
    try:
        yield outcome
    except ClientError as error:
        if _code(error) not in LOST:
            raise
        outcome.won = False


@contextmanager
def _errors(uri: str) -> Iterator[None]:
    """Turn boto3's errors into the operator's own: worth another attempt, or not."""
    try:
        yield
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        text = f"{uri}: {_code(error)}: {error.response.get('Error', {}).get('Message', '')}"[:300]
        if status >= SERVER_ERROR or status in OVERLOADED:
            raise Unavailable(text) from error
        raise Refused(text, _code(error)) from error
    except (ParamValidationError, ProfileNotFound) as error:
        raise Refused(f"{uri}: {' '.join(str(error).split())[:300]}") from error
    except (BotoCoreError, HTTPClientError) as error:
        raise Unavailable(f"{uri}: {str(error).splitlines()[0][:300]}") from error


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")
