"""The attack matrix: everything that is not what was signed is refused, counted by its cause, and changes nothing."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import pytest
from tuf.api.metadata import Metadata, MetaFile, Root, Snapshot, Targets, Timestamp

from dram_agent.document import Release
from dram_agent.errors import Cause
from dram_operator.adapters.releases.roles import sign
from tests.agent.box import PATH, Box, Fleet
from tests.agent.site import Answer

TIMESTAMP = "metadata/timestamp.json"
HONEST, NEXT = b"honest" * 50, b"next" * 50


@dataclass
class Field:
    """A device that serves an honest release, and a repository that has just released the next one."""

    fleet: Fleet
    box: Box
    next: Release

    @property
    def files(self) -> dict[str, bytes]:
        """What the server has."""
        return self.fleet.site.files

    def timestamp(self) -> Timestamp:
        return Metadata[Timestamp].from_bytes(self.files[TIMESTAMP]).signed

    def snapshot_path(self) -> str:
        return f"metadata/{self.timestamp().snapshot_meta.version}.snapshot.json"

    def snapshot(self) -> Snapshot:
        return Metadata[Snapshot].from_bytes(self.files[self.snapshot_path()]).signed

    def role_path(self, role: str) -> str:
        return f"metadata/{self.snapshot().meta[f'{role}.json'].version}.{role}.json"

    def bin(self) -> str:
        return self.fleet.installation.repository().read().bin_of(PATH)

    def document_path(self) -> str:
        """The newest one: files keep the order in which they came."""
        return [path for path in self.files if path.startswith("targets/channels/tv/")][-1]

    def model_path(self) -> str:
        return f"targets/artifacts/{self.next.digest}/{hashlib.sha256(NEXT).hexdigest()}.model"

    def manifest_path(self) -> str:
        return f"targets/artifacts/{self.next.digest}/{self.next.digest}.manifest.json"

    def put_timestamp(self, change: Callable[[Timestamp], None], key: str = "operator") -> None:
        """Sign the timestamp again, changed."""
        signed = self.timestamp()
        change(signed)
        self.files[TIMESTAMP] = sign(signed, self.fleet.installation.folder.key(key))

    def put_snapshot(self, change: Callable[[Snapshot], None], key: str = "operator") -> None:
        """The same for the snapshot, with a timestamp that names it."""
        signed = self.snapshot()
        change(signed)
        signed.version += 1
        body = sign(signed, self.fleet.installation.folder.key(key))
        self.files[f"metadata/{signed.version}.snapshot.json"] = body
        self.put_timestamp(lambda timestamp: _name(timestamp, MetaFile.from_data(signed.version, body, ["sha256"])))

    def put_role(self, role: str, change: Callable[[Targets], None], key: str) -> None:
        """The same for a role that the snapshot names."""
        signed = Metadata[Targets].from_bytes(self.files[self.role_path(role)]).signed
        change(signed)
        signed.version += 1
        body = sign(signed, self.fleet.installation.folder.key(key))
        self.files[f"metadata/{signed.version}.{role}.json"] = body
        meta = MetaFile.from_data(signed.version, body, ["sha256"])
        self.put_snapshot(lambda snapshot: snapshot.meta.update({f"{role}.json": meta}))


def _name(timestamp: Timestamp, meta: MetaFile) -> None:
    timestamp.version += 1
    timestamp.snapshot_meta = meta


def _nothing(_: object) -> None:
    """Sign it as it is."""


def forever() -> Iterator[bytes]:
    while True:
        yield b"x" * 4096


def unsigned(field: Field) -> None:
    field.files[TIMESTAMP] = json.dumps({**json.loads(field.files[TIMESTAMP]), "signatures": []}).encode()


def signature_of_something_else(field: Field) -> None:
    body = json.loads(field.files[TIMESTAMP])
    body["signed"]["version"] += 1
    field.files[TIMESTAMP] = json.dumps(body).encode()


def timestamp_by_another_key(field: Field) -> None:
    field.put_timestamp(_nothing, "release")


def snapshot_by_another_key(field: Field) -> None:
    field.put_snapshot(_nothing, "release")


def document_by_the_release_key(field: Field) -> None:
    """Who may release artifacts may not say who gets them."""
    field.put_role(field.bin(), _nothing, "release")


def artifact_by_the_operator(field: Field) -> None:
    """Who may say who gets what may not make it: the stolen key of the operator releases nothing."""
    field.put_role("artifacts", _nothing, "operator")


def expired_timestamp(field: Field) -> None:
    field.fleet.installation.clock.pass_time(hours=25)


def expired_snapshot(field: Field) -> None:
    """A timestamp that is renewed for ever over a state that is not."""
    field.put_snapshot(lambda snapshot: setattr(snapshot, "expires", field.fleet.installation.clock()))


def expired_bin(field: Field) -> None:
    field.put_role(field.bin(), lambda role: setattr(role, "expires", field.fleet.installation.clock()), "operator")


def replayed_timestamp(field: Field) -> None:
    field.put_timestamp(lambda timestamp: setattr(timestamp, "version", 1))


def replayed_snapshot(field: Field) -> None:
    """By a stolen operator key: a newer timestamp over an older state."""
    body = field.files["metadata/1.snapshot.json"]
    field.put_timestamp(lambda timestamp: _name(timestamp, MetaFile.from_data(1, body, ["sha256"])))


def mixed(field: Field) -> None:
    """A bin of an earlier commit under the name of the current one: signed, but of another state."""
    current = field.role_path(field.bin())
    field.files[current] = field.files[f"metadata/1.{field.bin()}.json"]


def mixed_snapshot(field: Field) -> None:
    field.files[field.snapshot_path()] = field.files["metadata/1.snapshot.json"]


def cut_short(field: Field) -> None:
    path = field.snapshot_path()
    field.files[path] = field.files[path][:-7]


def too_long(field: Field) -> None:
    field.files[field.snapshot_path()] += b" " * 7


def endless(field: Field) -> None:
    field.fleet.site.answers[TIMESTAMP] = Answer(body=forever)


def endless_root(field: Field) -> None:
    field.fleet.site.answers["metadata/2.root.json"] = Answer(body=forever)


def endless_document(field: Field) -> None:
    field.fleet.site.answers[field.document_path()] = Answer(body=forever)


def trickling(field: Field) -> None:
    seconds = iter(range(0, 100_000, 31))
    field.box.web.monotonic = lambda: float(next(seconds))
    field.fleet.site.answers[TIMESTAMP] = Answer(body=lambda: iter([b"x"] * 100))


def oversized(field: Field) -> None:
    field.files[TIMESTAMP] = b"x" * 5000


def malformed(field: Field) -> None:
    field.files[TIMESTAMP] = b"{}"


def no_text(field: Field) -> None:
    field.files[TIMESTAMP] = bytes(range(128, 256))


def deep(field: Field) -> None:
    """Brackets that a parser without a bottom would fall into."""
    field.files[TIMESTAMP] = b"[" * 4096


def tampered_document(field: Field) -> None:
    path = field.document_path()
    field.files[path] = field.files[path].replace(b'"attempt":1', b'"attempt":9')


def signed_nonsense(field: Field) -> None:
    """Signed by the operator, and no document that an agent reads."""
    field.fleet.installation.repository().publish({PATH: b'{"schemaVersion": 99}'})
    field.fleet.copy()


def document_of_another_channel(field: Field) -> None:
    field.fleet.publish(stable=field.next, channel="tv/other")


def forged_root(field: Field) -> None:
    """By one key where two are needed."""
    root = Metadata[Root].from_bytes(field.fleet.installation.first_root).signed
    root.version = 2
    field.files["metadata/2.root.json"] = sign(root, field.fleet.installation.folder.root_keys()[0])


def old_root(field: Field) -> None:
    field.files["metadata/2.root.json"] = field.fleet.installation.first_root


def skipped_root(field: Field) -> None:
    root = Metadata[Root].from_bytes(field.fleet.installation.first_root).signed
    root.version = 7
    field.files["metadata/2.root.json"] = sign(root, *field.fleet.installation.folder.root_keys())


def tampered_model(field: Field) -> None:
    path = field.model_path()
    field.files[path] = field.files[path][:-1] + b"!"


def longer_model(field: Field) -> None:
    field.files[field.model_path()] += b"more"


def endless_model(field: Field) -> None:
    field.fleet.site.answers[field.model_path()] = Answer(body=forever)


def tampered_manifest(field: Field) -> None:
    path = field.manifest_path()
    field.files[path] = field.files[path].replace(b"model", b"MODEL")


ATTACKS: dict[Callable[[Field], None], Cause] = {
    unsigned: Cause.UNSIGNED,
    signature_of_something_else: Cause.UNSIGNED,
    timestamp_by_another_key: Cause.UNSIGNED,
    snapshot_by_another_key: Cause.UNSIGNED,
    document_by_the_release_key: Cause.UNSIGNED,
    artifact_by_the_operator: Cause.UNSIGNED,
    forged_root: Cause.UNSIGNED,
    expired_timestamp: Cause.EXPIRED,
    expired_snapshot: Cause.EXPIRED,
    expired_bin: Cause.EXPIRED,
    old_root: Cause.REPLAYED,
    skipped_root: Cause.REPLAYED,
    replayed_timestamp: Cause.REPLAYED,
    replayed_snapshot: Cause.REPLAYED,
    mixed: Cause.MISMATCH,
    mixed_snapshot: Cause.MISMATCH,
    cut_short: Cause.MISMATCH,
    tampered_document: Cause.MISMATCH,
    tampered_manifest: Cause.MISMATCH,
    document_of_another_channel: Cause.MISMATCH,
    too_long: Cause.OVERSIZED,
    oversized: Cause.OVERSIZED,
    endless: Cause.OVERSIZED,
    endless_root: Cause.OVERSIZED,
    endless_document: Cause.OVERSIZED,
    longer_model: Cause.OVERSIZED,
    endless_model: Cause.OVERSIZED,
    trickling: Cause.SLOW,
    malformed: Cause.MALFORMED,
    no_text: Cause.MALFORMED,
    deep: Cause.MALFORMED,
    signed_nonsense: Cause.MALFORMED,
    tampered_model: Cause.TAMPERED,
}


@pytest.fixture
def field(fleet: Fleet, box: Box) -> Field:
    honest, following = fleet.release(model=HONEST), fleet.release(model=NEXT)
    fleet.publish(stable=honest)
    box.boot()
    box.updater.cycle()
    assert box.runtime.serving == honest.digest
    box.runtime.log.clear()
    fleet.publish(stable=following)
    return Field(fleet, box, following)


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
def test_an_attack_is_refused_and_counted_and_the_device_keeps_serving(
    field: Field, attack: Callable[[Field], None]
) -> None:
    box, before = field.box, dict(field.files)
    attack(field)
    box.updater.cycle()
    assert dict(box.refused) == {ATTACKS[attack]: 1}
    assert box.runtime.log == []
    assert box.disk.read(f"slots/{box.updater.state.active}/model") == HONEST
    assert NEXT not in [box.disk.read(f"slots/{slot}/model") for slot in box.slots.held()]
    # a restart under the attack changes nothing either
    box.boot()
    box.updater.cycle()
    assert box.disk.read(f"slots/{box.updater.state.active}/model") == HONEST
    assert box.refused.total() == 2
    assert before.keys() <= field.files.keys()


@pytest.mark.parametrize("attack", [cut_short, endless, endless_model, tampered_model, tampered_manifest, forged_root])
def test_when_an_attack_is_over_the_device_goes_on(field: Field, attack: Callable[[Field], None]) -> None:
    """What was between device and repository is gone: nothing that it sent stays."""
    honest = dict(field.files)
    attack(field)
    field.box.updater.cycle()
    field.fleet.site.files = honest
    field.fleet.site.answers.clear()
    field.box.updater.cycle()
    assert field.box.runtime.serving == field.next.digest
