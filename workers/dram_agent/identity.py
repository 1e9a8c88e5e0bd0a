"""Who a device is: a random id, and a token that the owner of the devices signed over it.

The token is a JSON Web Token (RFC 7519) signed with Ed25519 (RFC 8037). Its claims are the id, the channel with its
namespace, the class and the expiry; nothing else of a device's telemetry is believed without it.
"""

import os
import secrets
from collections.abc import Iterable
from hashlib import sha256
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)
from pydantic import ConfigDict, Field, ValidationError, model_validator

from dram_agent.document import CHANNEL
from dram_agent.settings import DEVICE_ID, NAME, SettingsInvalid
from dram_workers.model import Model

AUDIENCE = "dram-gateway"
ALGORITHM = "EdDSA"
LONGEST_TOKEN = 2048
PRIVATE = 0o600

DeviceId = Annotated[str, Field(pattern=DEVICE_ID)]
Moment = Annotated[int, Field(ge=0, le=1 << 40)]


class TokenInvalid(ValueError):
    """No token, not one of ours, or not one of these keys."""


class Claims(Model):
    """What a token says. The names on the wire are those of RFC 7519."""

    model_config = ConfigDict(extra="ignore")

    device: Annotated[DeviceId, Field(alias="sub")]
    namespace: Annotated[str, Field(max_length=63)]
    channel: Annotated[str, Field(max_length=127, pattern=CHANNEL)]
    """`namespace/name`."""
    device_class: Annotated[str | None, Field(alias="class", max_length=63, pattern=NAME)] = None
    issued_at: Annotated[Moment, Field(alias="iat")]
    """Seconds since the epoch."""
    expires_at: Annotated[Moment, Field(alias="exp")]
    """Seconds since the epoch."""
    audience: Annotated[Literal["dram-gateway"], Field(alias="aud")] = "dram-gateway"

    @model_validator(mode="after")
    def _namespace_is_the_channels(self) -> Self:
        if self.channel.partition("/")[0] != self.namespace:
            raise ValueError("the channel lies in another namespace")
        return self


def new_id() -> str:
    """A random id of 128 bits: it tells nothing of the device."""
    return secrets.token_hex(16)


def issue(key: Ed25519PrivateKey, claims: Claims) -> str:
    """Sign a token."""
    payload = claims.model_dump(mode="json", by_alias=True, exclude_none=True)
    return jwt.encode(payload, key, ALGORITHM, headers={"kid": key_id(key.public_key())})


class Issuers:
    """The public keys whose tokens count: more than one while a key is replaced."""

    def __init__(self, keys: Iterable[Ed25519PublicKey]) -> None:
        self._keys = {key_id(key): key for key in keys}

    def verify(self, token: str) -> Claims:
        """The claims of a token, whether it has expired or not. TokenInvalid."""
        if len(token) > LONGEST_TOKEN:
            raise TokenInvalid("too long")
        try:
            key = self._keys.get(str(jwt.get_unverified_header(token).get("kid")))
            if key is None:
                raise TokenInvalid("signed by a key that does not count")
            # the caller has the clock
            options: Any = {"require": ["sub", "exp", "iat", "aud"], "verify_exp": False, "verify_iat": False}
            return Claims.model_validate(
                jwt.decode(token, key, algorithms=[ALGORITHM], audience=AUDIENCE, options=options)
            )
        except (jwt.InvalidTokenError, ValidationError) as error:
            raise TokenInvalid(type(error).__name__) from error


def key_id(key: Ed25519PublicKey) -> str:
    """Tells keys apart: the first 64 bits of the SHA-256 of the public key."""
    return sha256(key.public_bytes(Encoding.Raw, PublicFormat.Raw)).hexdigest()[:16]


def new_key(path: Path) -> None:
    """Make a key to sign tokens with, and `<path>.pub` for the gateway. SettingsInvalid where there is a file."""
    key = Ed25519PrivateKey.generate()
    write_private(path, key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    path.with_name(f"{path.name}.pub").write_bytes(public)


def load_key(path: Path) -> Ed25519PrivateKey:
    """A private key from its file. SettingsInvalid; the message has no part of it."""
    try:
        key = load_pem_private_key(path.read_bytes(), password=None)
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise SettingsInvalid(f"{path} is no readable private key in PEM without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise SettingsInvalid(f"{path} is no Ed25519 key")
    return key


def load_public_key(path: Path) -> Ed25519PublicKey:
    """A public key from its file. SettingsInvalid."""
    try:
        key = load_pem_public_key(path.read_bytes())
    except (OSError, ValueError, UnsupportedAlgorithm) as error:
        raise SettingsInvalid(f"{path} is no readable public key in PEM") from error
    if not isinstance(key, Ed25519PublicKey):
        raise SettingsInvalid(f"{path} is no Ed25519 key")
    return key


def write_private(path: Path, body: bytes) -> None:
    """Write a file that nobody but its owner can read. SettingsInvalid where there is one: nothing is overwritten."""
    try:
        handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE)
    except OSError as error:
        raise SettingsInvalid(f"{path} cannot be made: {error.strerror}") from error
    with os.fdopen(handle, "wb") as file:
        file.write(body)
        file.flush()
        os.fsync(file.fileno())
