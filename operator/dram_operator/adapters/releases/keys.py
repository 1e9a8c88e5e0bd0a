"""Signing keys as files: ed25519, PKCS #8, mode 0600. Nothing of a private key is ever logged or shown."""

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from securesystemslib.signer import CryptoSigner, Signer
from tuf.api.metadata import Metadata, Root

from dram_operator.errors import Refused

TARGETS_KEY, RELEASE_KEY, OPERATOR_KEY = "targets", "release", "operator"
ROOT_KEY = "root"
"""Root keys are `root-1.pem`, `root-2.pem`, …: each belongs into the hands of another person."""
PINNED = "root.json"
"""The newest root, for the agents to pin."""
PRIVATE = 0o600


def load_key(path: Path) -> CryptoSigner:
    """A private key from its file. Refused when it is none; the message has no part of it."""
    try:
        return CryptoSigner(load_pem_private_key(path.read_bytes(), password=None))
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise Refused(f"{path} is no readable private key in PEM without a password") from error


def new_key(path: Path) -> CryptoSigner:
    """Make a key and write it where there is no file, for nobody but the owner to read."""
    signer = CryptoSigner.generate_ed25519()
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except FileExistsError as error:
        raise Refused(f"{path} exists: no key is ever overwritten") from error
    with os.fdopen(handle, "wb") as file:
        file.write(signer.private_bytes)
        file.flush()
        os.fsync(file.fileno())
    return signer


@dataclass(frozen=True)
class KeyFolder:
    """A folder with some or all of an installation's keys, and every root file so far."""

    path: Path

    def file(self, name: str) -> Path:
        """A key's file."""
        return self.path / f"{name}.pem"

    def has(self, name: str) -> bool:
        """Whether the key is here."""
        return self.file(name).exists()

    def key(self, name: str) -> CryptoSigner:
        """A key that is needed now."""
        return load_key(self.file(name))

    def root_keys(self) -> list[CryptoSigner]:
        """The root keys that are here, in the order of their numbers."""
        files = [file for file in self.path.glob(f"{ROOT_KEY}-*.pem") if file.stem.partition("-")[2].isdigit()]
        return [load_key(file) for file in sorted(files, key=lambda file: int(file.stem.partition("-")[2]))]

    def signers_of(self, keyids: Iterable[str]) -> list[Signer]:
        """Every key here, retired ones too, that is one of these."""
        wanted = set(keyids)
        found = {signer.public_key.keyid: signer for signer in map(load_key, sorted(self.path.glob("*.pem")))}
        return [signer for keyid, signer in found.items() if keyid in wanted]

    def retire(self, name: str) -> None:
        """Move a key aside before another takes its name."""
        keyid = self.key(name).public_key.keyid
        self.file(name).rename(self.path / f"{name}.retired-{keyid[:8]}.pem")

    def roots(self) -> dict[int, bytes]:
        """Every root file, by version."""
        files = {file: Metadata[Root].from_bytes(file.read_bytes()) for file in self.path.glob("roots/*.json")}
        return {metadata.signed.version: file.read_bytes() for file, metadata in files.items()}

    def keep_root(self, version: int, body: bytes) -> None:
        """Keep a root file beside the keys: the bucket may be lost, the chain of roots must not."""
        (self.path / "roots").mkdir(exist_ok=True)
        (self.path / "roots" / f"{version}.root.json").write_bytes(body)
        (self.path / PINNED).write_bytes(body)
