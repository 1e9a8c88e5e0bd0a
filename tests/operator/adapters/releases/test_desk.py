"""Taking artifacts in: what is there, what may still come, and what is signed; at the real S3 server."""

import hashlib

import pytest
import urllib3

from dram_operator.adapters.releases.desk import ReleaseDesk, Standing
from dram_operator.adapters.releases.signing import file_key
from dram_operator.errors import Refused
from dram_workers.release.contract import MANIFEST, ArtifactFile
from tests.operator.adapters.releases.installation import Installation


def a_desk(installation: Installation, key: str | None = "release") -> ReleaseDesk:
    signer = installation.folder.key(key) if key else None
    return ReleaseDesk(installation.bucket, installation.first_root, installation.clock, signer)


def key_of(digest: str, path: str, body: bytes) -> str:
    return file_key(digest, ArtifactFile(path=path, sha256=hashlib.sha256(body).hexdigest(), size=len(body)))


def send(desk: ReleaseDesk, digest: str, body: bytes, *files: ArtifactFile) -> None:
    for upload in desk.grant(digest, files):
        assert urllib3.request("PUT", upload.url, body=body, headers=upload.headers).status == 200


def test_an_artifact_that_is_not_there_begins_with_its_manifest(installation: Installation) -> None:
    desk = a_desk(installation)
    assert desk.standing("0" * 64) == Standing()
    assert not desk.standing("0" * 64).is_whole
    assert [upload.path for upload in desk.grant("0" * 64, ())] == [MANIFEST]


def test_a_whole_artifact_lacks_nothing(installation: Installation) -> None:
    digest = installation.upload(model=b"weights", card=b"# card")
    standing = a_desk(installation).standing(digest)
    assert standing.is_whole
    assert standing.manifest == a_desk(installation).manifest(digest)


def test_a_file_that_is_missing_short_or_another_one_may_come_again(installation: Installation) -> None:
    digest, desk = installation.upload(model=b"weights", card=b"# card"), a_desk(installation)
    key = key_of(digest, "model", b"weights")
    installation.bucket.delete([key])
    assert [file.path for file in desk.standing(digest).missing] == ["model"]
    installation.bucket.put(key, b"weight")
    (lacking,) = desk.standing(digest).missing
    send(desk, digest, b"weights", lacking)
    assert desk.standing(digest).is_whole
    # The server's own checksum tells another file of the same length, which nobody reads back.
    other = installation.bucket.grant_upload(key, hashlib.sha256(b"WEIGHTS").hexdigest(), 60)
    assert urllib3.request("PUT", other[0], body=b"WEIGHTS", headers=other[1]).status == 200
    assert [file.path for file in desk.standing(digest).missing] == ["model"]
    with pytest.raises(Refused, match="not the file"):
        desk.sign(digest)


def test_another_manifest_in_its_place_is_none(installation: Installation) -> None:
    digest, desk = installation.upload(model=b"weights"), a_desk(installation)
    body = desk.manifest(digest)
    assert body is not None
    installation.bucket.put(key_of(digest, MANIFEST, body), body + b" ")
    assert desk.manifest(digest) is None
    assert desk.standing(digest) == Standing()


def test_what_is_signed_counts_before_it_is_committed_and_after(installation: Installation) -> None:
    digest, desk = installation.upload(model=b"weights"), a_desk(installation)
    assert desk.signed() == frozenset()
    desk.sign(digest)
    assert desk.signed() == {digest}
    installation.repository().renew()
    assert desk.signed() == {digest}
    desk.withdraw([digest])
    assert desk.signed() == frozenset()


def test_a_signature_of_another_key_counts_for_nothing(installation: Installation) -> None:
    digest = installation.upload(model=b"weights")
    with pytest.raises(Refused, match="holds no release key"):
        a_desk(installation, None).sign(digest)
    assert not a_desk(installation, None).can_sign
    a_desk(installation, None).withdraw([digest])
    assert a_desk(installation).signed() == frozenset()
