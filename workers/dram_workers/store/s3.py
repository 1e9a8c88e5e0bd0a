"""An object store in an S3 bucket. Credentials come from the environment and are never logged."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import boto3
from boto3.s3.transfer import TransferConfig
from botocore.config import Config
from botocore.exceptions import ClientError

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.stages import StoreSettings
from dram_workers.store.location import join
from dram_workers.store.objects import ObjectInfo
from dram_workers.store.s3_errors import storage_errors

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from mypy_boto3_s3.type_defs import ObjectTypeDef

CONNECT_SECONDS = 10
READ_SECONDS = 60
PART_BYTES = 32 << 20
"""Files above this travel in parts: 10,000 parts of 32 MiB are 312 GiB."""
DELETE_BATCH = 1000
"""The most keys that one DeleteObjects takes."""
CONFLICT_TRIES = 5
"""S3 answers 409 while another conditional write of the key is under way, and asks to try again."""
ABSENT = {"NoSuchKey", "404"}


class S3Store:
    """Objects below the prefix of `settings.uri`. Thread-safe, as boto3's clients are."""

    def __init__(self, settings: StoreSettings) -> None:
        parts = urlsplit(settings.uri)
        self._uri = settings.uri
        self._bucket = parts.netloc
        self._prefix = parts.path.strip("/")
        self._settings = settings
        self._client = _client(settings)
        self._transfer = TransferConfig(
            multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4
        )

    def put_file(self, key: str, path: Path) -> None:
        """Upload a file, in parts where it is large; S3 shows it when it is complete."""
        # upload_file would hide the cause of a failure in a string
        with storage_errors(self._settings), path.open("rb") as body:
            self._client.upload_fileobj(body, self._bucket, self._key(key), Config=self._transfer)

    def put_bytes(self, key: str, body: bytes, *, if_absent: bool = False) -> bool:
        """Write an object; with `if_absent`, only where there is none (`If-None-Match: *`)."""
        with storage_errors(self._settings):
            if not if_absent:
                self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=body)
                return True
            for attempt in range(1, CONFLICT_TRIES + 1):
                try:
                    self._client.put_object(Bucket=self._bucket, Key=self._key(key), Body=body, IfNoneMatch="*")
                except ClientError as error:
                    if _code(error) in {"PreconditionFailed", "412"}:
                        return False
                    if _code(error) != "ConditionalRequestConflict" or attempt == CONFLICT_TRIES:
                        raise
                else:
                    return True
        return False

    def get_bytes(self, key: str, *, first: int | None = None) -> bytes | None:
        """Read an object, or its first bytes; None when there is none."""
        with storage_errors(self._settings):
            try:
                if first is None:
                    return self._client.get_object(Bucket=self._bucket, Key=self._key(key))["Body"].read()
                span = f"bytes=0-{first - 1}"
                return self._client.get_object(Bucket=self._bucket, Key=self._key(key), Range=span)["Body"].read()
            except ClientError as error:
                if _code(error) in ABSENT:
                    return None
                raise

    def get_file(self, key: str, path: Path) -> None:
        """Download an object to a file that appears whole; FileNotFoundError when there is none."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with storage_errors(self._settings):
            try:
                self._client.download_file(self._bucket, self._key(key), str(path), Config=self._transfer)
            except ClientError as error:
                if _code(error) in ABSENT:
                    raise FileNotFoundError(self.uri(key)) from error
                raise

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Objects whose key starts with `prefix`, in the order of the server."""
        with storage_errors(self._settings):
            pages = self._client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=self._key(prefix)
            )
            for page in pages:
                for found in page.get("Contents", []):
                    # some servers list a folder's own marker
                    if not found["Key"].endswith("/"):
                        yield self._info(found)

    def delete(self, keys: Sequence[str]) -> None:
        """Delete objects; absent ones are no error."""
        for start in range(0, len(keys), DELETE_BATCH):
            batch = [{"Key": self._key(key)} for key in keys[start : start + DELETE_BATCH]]
            with storage_errors(self._settings):
                answer = self._client.delete_objects(Bucket=self._bucket, Delete={"Objects": batch, "Quiet": True})  # type: ignore[typeddict-item]
                for failed in answer.get("Errors", []):
                    raise ClientError(
                        {"Error": {"Code": failed.get("Code", ""), "Message": failed.get("Message", "")}},
                        "DeleteObjects",
                    )

    def uri(self, key: str) -> str:
        """The full URI of a key."""
        return join(self._uri, key)

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _info(self, found: "ObjectTypeDef") -> ObjectInfo:
        key = found["Key"][len(self._prefix) + 1 :] if self._prefix else found["Key"]
        return ObjectInfo(
            key=key,
            size_bytes=found["Size"],
            modified=found["LastModified"].timestamp(),
            etag=found.get("ETag", "").strip('"') or None,
        )


def _client(settings: StoreSettings) -> "S3Client":
    config = Config(
        # AWS_MAX_ATTEMPTS in the environment raises the three attempts
        retries={"mode": "standard"},
        connect_timeout=CONNECT_SECONDS,
        read_timeout=READ_SECONDS,
        s3={"addressing_style": "path" if settings.path_style else "auto"},
    )
    try:
        with storage_errors(settings):
            return boto3.session.Session().client(
                "s3",
                endpoint_url=settings.endpoint,
                region_name=settings.region or ("us-east-1" if settings.endpoint else None),
                verify=settings.ca_file,
                config=config,
            )
    except ValueError as error:
        raise BadInput(
            WorkerReason.STORAGE_NOT_FOUND,
            f"{settings.endpoint}: {error}",
            field="spec.storage.endpoint",
            remedy="Give the server's URL, e.g. https://s3.example.com.",
        ) from error


def _code(error: ClientError) -> str:
    return error.response.get("Error", {}).get("Code", "")
