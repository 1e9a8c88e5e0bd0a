"""Releasing artifacts: only what was uploaded whole, only by the release key, never one over another."""

import hashlib
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from threading import Barrier

import pytest
import urllib3

from dram_operator.adapters.releases.bucket import Bucket, Listed
from dram_operator.adapters.releases.roles import channel_path, target_key
from dram_operator.adapters.releases.signing import grant_uploads, manifest_path, missing_files
from dram_operator.errors import Refused
from dram_workers.release.contract import Upload
from tests.operator.adapters.releases.installation import Device, Installation
from tests.operator.adapters.releases.test_desk import a_desk

BOT = channel_path("tv", "support-bot")


def test_a_signed_artifact_reaches_devices_with_the_next_commit(installation: Installation) -> None:
    digest = installation.upload(model=b"weights", card=b"# card")
    installation.signer().sign([digest])
    device = Device(installation)
    assert device.read(manifest_path(digest)) is None
    installation.repository().renew()
    assert device.read(f"artifacts/{digest}/model") == b"weights"
    manifest = device.read(manifest_path(digest))
    assert manifest is not None
    assert hashlib.sha256(manifest).hexdigest() == digest


def test_signing_again_writes_nothing(installation: Installation) -> None:
    digest = installation.upload(model=b"weights")
    assert installation.signer().sign([digest]) == installation.signer().sign([digest]) == 2


def test_a_withdrawn_artifact_is_no_target_any_more(installation: Installation) -> None:
    kept, gone = installation.upload(model=b"kept"), installation.upload(model=b"gone")
    installation.signer().sign([kept, gone])
    installation.repository().renew()
    installation.signer().sign((), withdraw=[gone])
    installation.repository().renew()
    device = Device(installation)
    assert device.read(manifest_path(gone)) is None
    assert device.read(f"artifacts/{kept}/model") == b"kept"


def test_a_missing_manifest_a_missing_file_and_a_changed_file_are_refused(installation: Installation) -> None:
    with pytest.raises(Refused, match="the manifest of"):
        installation.signer().sign(["0" * 64])
    digest = installation.upload(model=b"weights")
    key = target_key(f"artifacts/{digest}/model", hashlib.sha256(b"weights").hexdigest())
    for other, message in ((b"Weights", "not the file"), (b"weights and more", "not the file")):
        installation.bucket.put(key, other)
        with pytest.raises(Refused, match=message):
            installation.signer().sign([digest])
    installation.bucket.delete([key])
    with pytest.raises(Refused, match="is not in"):
        installation.signer().sign([digest])


@pytest.mark.parametrize("path", ["../x", "/etc/passwd", "a/../../x", "a/b/c", "manifest.json", ""])
def test_a_manifest_that_names_paths_outside_is_refused(installation: Installation, path: str) -> None:
    manifest = json.dumps({"files": [{"path": path, "sha256": "0" * 64, "size": 1}]}).encode()
    with pytest.raises(Refused, match="no path"):
        missing_files(installation.bucket, hashlib.sha256(manifest).hexdigest(), manifest)


@pytest.mark.parametrize("body", [b"", b"[]", b'{"files": []}', b'{"files": [{"path": "x"}]}'])
def test_what_is_no_manifest_is_refused(installation: Installation, body: bytes) -> None:
    with pytest.raises(Refused, match="cannot be read"):
        missing_files(installation.bucket, hashlib.sha256(body).hexdigest(), body)
    with pytest.raises(Refused, match="not that of"):
        missing_files(installation.bucket, "0" * 64, body)


def test_an_artifact_is_uploaded_by_grants_alone_and_goes_on_where_it_stopped(installation: Installation) -> None:
    files = {"model": b"weights", "card": b"# card"}
    entries = [{"path": n, "sha256": hashlib.sha256(b).hexdigest(), "size": len(b)} for n, b in files.items()]
    manifest = json.dumps({"files": entries}).encode()
    digest = hashlib.sha256(manifest).hexdigest()
    files["manifest.json"] = manifest
    uploads = granted(installation, digest, manifest)
    assert [upload.path for upload in uploads] == ["model", "card", "manifest.json"]
    first = uploads[0]
    assert urllib3.request("PUT", first.url, body=files["model"], headers=first.headers).status == 200
    rest = granted(installation, digest, manifest)
    assert [upload.path for upload in rest] == ["card", "manifest.json"]
    for upload in rest:
        assert urllib3.request("PUT", upload.url, body=files[upload.path], headers=upload.headers).status == 200
    assert granted(installation, digest, manifest) == []
    assert installation.signer().sign([digest]) == 2


def test_a_signature_that_another_one_overtakes_anywhere_loses_none(installation: Installation) -> None:
    """The other signer comes before the first look at the versions there are, the second, and so on."""
    digests: list[str] = []
    requests = 0

    class Overtaken(Bucket):
        def list(self, prefix: str) -> Iterator[Listed]:
            self.meet()
            return super().list(prefix)

        def create(self, key: str, body: bytes) -> bool:
            self.meet()
            return super().create(key, body)

        def meet(self) -> None:
            nonlocal requests
            requests += 1
            if requests == moment:
                digests.append(installation.upload(model=f"other {moment}".encode()))
                installation.signer().sign([digests[-1]])

    signer, moment = installation.signer(), 0
    while moment <= requests:
        moment, requests = moment + 1, 0
        digests.append(installation.upload(model=f"mine {moment}".encode()))
        replace(signer, bucket=Overtaken(installation.settings)).sign([digests[-1]])
    assert a_desk(installation).signed() == {*digests}


def granted(installation: Installation, digest: str, manifest: bytes) -> list[Upload]:
    return grant_uploads(installation.bucket, digest, missing_files(installation.bucket, digest, manifest))


def test_two_signers_at_once_lose_no_artifact(installation: Installation) -> None:
    digests = [installation.upload(model=f"weights {number}".encode()) for number in range(4)]
    barrier = Barrier(2)

    def sign(mine: list[str]) -> None:
        signer = installation.signer()
        for digest in mine:
            barrier.wait()
            signer.sign([digest])

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(sign, [digests[:2], digests[2:]]))
    installation.repository().renew()
    device = Device(installation)
    assert [device.read(manifest_path(digest)) is not None for digest in digests] == [True] * 4
