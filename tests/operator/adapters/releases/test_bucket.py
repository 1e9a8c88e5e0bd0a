"""The two conditional writes that the repository stands on, at the real S3 server."""

import base64
import hashlib
import zlib
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier
from urllib.parse import parse_qs, urlsplit

import pytest
import urllib3

from dram_operator.adapters.releases.bucket import Bucket, BucketSettings
from dram_operator.errors import Refused, Unavailable
from tests.operator.adapters.releases.installation import Installation

WRITERS, ROUNDS = 4, 10


def test_of_many_writers_of_a_new_name_one_wins(installation: Installation) -> None:
    barrier = Barrier(WRITERS)

    def write(writer: int) -> list[bool]:
        bucket = Bucket(installation.settings)
        won = []
        for number in range(ROUNDS):
            barrier.wait()
            won.append(bucket.create(f"race/{number}", f"{writer}".encode()))
        return won

    with ThreadPoolExecutor(WRITERS) as pool:
        outcomes = list(pool.map(write, range(WRITERS)))
    for number, won in enumerate(zip(*outcomes, strict=True)):
        assert sum(won) == 1
        stored = installation.bucket.get(f"race/{number}")
        assert stored is not None
        assert stored.body == f"{won.index(True)}".encode()


def test_of_many_writers_over_what_they_read_one_wins(installation: Installation) -> None:
    barrier = Barrier(WRITERS)
    installation.bucket.create("race/commit", b"0")

    def write(writer: int) -> list[bool]:
        bucket = Bucket(installation.settings)
        won = []
        for number in range(ROUNDS):
            stored = bucket.get("race/commit")
            assert stored is not None
            barrier.wait()
            won.append(bucket.replace("race/commit", f"{number} {writer}".encode(), stored.etag))
            barrier.wait()
        return won

    with ThreadPoolExecutor(WRITERS) as pool:
        outcomes = list(pool.map(write, range(WRITERS)))
    assert [sum(won) for won in zip(*outcomes, strict=True)] == [1] * ROUNDS


def test_a_replacement_of_what_is_not_there_loses(installation: Installation) -> None:
    assert not installation.bucket.replace("absent", b"1", '"0123"')
    assert installation.bucket.get("absent") is None


def test_an_upload_grant_takes_the_very_bytes_and_no_others(installation: Installation) -> None:
    body = b"weights"
    url, headers = installation.bucket.grant_upload("targets/x", hashlib.sha256(body).hexdigest(), 60)
    other = {"x-amz-checksum-sha256": base64.b64encode(hashlib.sha256(b"evil").digest()).decode()}
    assert urllib3.request("PUT", url, body=b"evil", headers=headers).status >= 400
    assert urllib3.request("PUT", url, body=b"evil", headers=other).status >= 400
    assert urllib3.request("PUT", url, body=b"evil").status >= 400
    crc = {**headers, "x-amz-checksum-crc32": base64.b64encode(zlib.crc32(b"evil").to_bytes(4)).decode()}
    assert urllib3.request("PUT", url, body=b"evil", headers=crc).status >= 400
    hashed = {**headers, "x-amz-content-sha256": hashlib.sha256(b"evil").hexdigest()}
    assert urllib3.request("PUT", url, body=b"evil", headers=hashed).status >= 400
    assert urllib3.request("PUT", url.replace("targets/x", "targets/y"), body=body, headers=headers).status >= 400
    assert installation.bucket.get("targets/x") is None
    assert installation.bucket.get("targets/y") is None
    assert urllib3.request("PUT", url, body=body, headers=headers).status == 200
    assert installation.bucket.holds("targets/x", len(body), hashlib.sha256(body).hexdigest())
    assert not installation.bucket.holds("targets/x", len(body), hashlib.sha256(b"evil").hexdigest())
    for method in ("GET", "DELETE"):
        assert urllib3.request(method, url, headers=headers).status >= 400
    assert urllib3.request("PUT", url, body=b"evil", headers=headers).status >= 400
    stored = installation.bucket.get("targets/x")
    assert stored is not None
    assert stored.body == body


def test_a_grant_is_signed_by_the_version_that_binds_its_headers(installation: Installation) -> None:
    url, _ = installation.bucket.grant_upload("targets/x", "00" * 32, 60)
    asked = parse_qs(urlsplit(url).query)
    assert asked["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert asked["X-Amz-SignedHeaders"] == ["host;x-amz-checksum-sha256"]
    assert asked["X-Amz-Expires"] == ["60"]


def test_a_server_that_is_down_is_worth_another_attempt(installation: Installation) -> None:
    bucket = Bucket(BucketSettings("s3://releases", "http://127.0.0.1:9"))
    with pytest.raises(Unavailable, match="s3://releases"):
        bucket.get("x")


def test_a_missing_bucket_is_refused(installation: Installation) -> None:
    settings = BucketSettings("s3://no-such-bucket", installation.settings.endpoint)
    with pytest.raises(Refused, match="NoSuchBucket"):
        Bucket(settings).put("x", b"")
    with pytest.raises(Refused, match="no bucket"):
        Bucket(BucketSettings("https://releases"))
