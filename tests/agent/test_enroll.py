"""Identities as their owner makes and takes them: files for one reader, tokens that say who and until when."""

import json
import stat
from pathlib import Path
from typing import Any

import jwt
import pytest
from click.testing import CliRunner, Result
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from dram_agent.gateway.revocations import FOR_GOOD, Revocations, parse
from dram_agent.identity import Claims, Issuers, TokenInvalid, issue, load_key, load_public_key, new_key
from dram_agent.settings import SettingsInvalid, read_id
from dram_operator.cli import main

CHANNEL = "tv/support-bot"


def run(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, ["agent", *map(str, arguments)])


@pytest.fixture
def key(tmp_path: Path) -> Path:
    assert run("new-key", tmp_path / "owner.pem").exit_code == 0
    return tmp_path / "owner.pem"


def test_a_device_gets_an_id_and_a_token_that_only_it_can_read(key: Path, tmp_path: Path) -> None:
    out = tmp_path / "box-1"
    done = run("enroll", "--channel", CHANNEL, "--key", key, "--out", out, "--class", "set-top-box", "--days", "30")
    assert done.exit_code == 0, done.output
    device = read_id(out / "device-id")
    assert device == done.output.strip()
    for file in (out / "device-id", out / "token", key):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    claims = Issuers([load_public_key(key.with_name("owner.pem.pub"))]).verify((out / "token").read_text().strip())
    assert (claims.device, claims.channel, claims.namespace, claims.device_class) == (
        device,
        CHANNEL,
        "tv",
        "set-top-box",
    )
    assert claims.expires_at - claims.issued_at == 30 * 86_400


def test_every_device_gets_another_id(key: Path, tmp_path: Path) -> None:
    ids = {
        run("enroll", "--channel", CHANNEL, "--key", key, "--out", tmp_path / f"{number}").output for number in range(5)
    }
    assert len(ids) == 5


def test_a_renewed_token_is_the_same_devices(key: Path, tmp_path: Path) -> None:
    device = "d" * 32
    done = run("enroll", "--channel", CHANNEL, "--key", key, "--out", tmp_path / "new", "--device", device)
    assert done.exit_code == 0, done.output
    assert not (tmp_path / "new/device-id").exists()
    issuers = Issuers([load_public_key(key.with_name("owner.pem.pub"))])
    assert issuers.verify((tmp_path / "new/token").read_text().strip()).device == device


def test_nothing_is_overwritten(key: Path, tmp_path: Path) -> None:
    arguments = ("enroll", "--channel", CHANNEL, "--key", key, "--out", tmp_path / "box")
    assert run(*arguments).exit_code == 0
    token = (tmp_path / "box/token").read_bytes()
    assert run(*arguments).exit_code == 2
    assert run("new-key", key).exit_code == 2
    assert (tmp_path / "box/token").read_bytes() == token


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"--channel": "support-bot"}, "channel"),
        ({"--channel": "TV/bot"}, "channel"),
        ({"--device": "serial-number-1"}, "device"),
        ({"--class": "set top box"}, "class"),
        ({"--key": "absent.pem"}, "absent.pem"),
    ],
)
def test_what_cannot_be_enrolled_is_named(key: Path, tmp_path: Path, changes: dict[str, str], message: str) -> None:
    options = {"--channel": CHANNEL, "--key": str(key), "--out": str(tmp_path / "box"), **changes}
    done = run("enroll", *(word for pair in options.items() for word in pair))
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "box/token").exists()


def test_a_key_of_another_kind_is_none(tmp_path: Path) -> None:
    other = ec.generate_private_key(ec.SECP256R1())
    private, public = tmp_path / "ec.pem", tmp_path / "ec.pub"
    private.write_bytes(other.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    public.write_bytes(other.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    for load, path in ((load_key, private), (load_public_key, public), (load_key, public), (load_public_key, private)):
        with pytest.raises(SettingsInvalid):
            load(path)


def test_tokens_of_an_old_key_count_while_it_is_replaced(key: Path, tmp_path: Path) -> None:
    new_key(tmp_path / "next.pem")
    publics = [load_public_key(tmp_path / name) for name in ("owner.pem.pub", "next.pem.pub")]
    claims = Claims(device="d" * 32, namespace="tv", channel=CHANNEL, issued_at=1, expires_at=2)
    tokens = [issue(load_key(tmp_path / name), claims) for name in ("owner.pem", "next.pem")]
    assert [Issuers(publics).verify(token) for token in tokens] == [claims, claims]
    with pytest.raises(TokenInvalid):
        Issuers(publics[1:]).verify(tokens[0])


@pytest.mark.parametrize("missing", ["sub", "exp", "iat", "aud", "channel", "namespace"])
def test_a_token_without_a_claim_is_none(key: Path, missing: str) -> None:
    private = load_key(key)
    claims = Claims(device="d" * 32, namespace="tv", channel=CHANNEL, issued_at=1, expires_at=2)
    payload: dict[str, Any] = claims.model_dump(mode="json", by_alias=True, exclude_none=True)
    del payload[missing]
    token = jwt.encode(payload, private, "EdDSA", headers=jwt.get_unverified_header(issue(private, claims)))
    with pytest.raises(TokenInvalid):
        Issuers([private.public_key()]).verify(token)


def test_revoked_and_decommissioned_devices_stand_on_the_list(tmp_path: Path) -> None:
    listed, one, two = tmp_path / "revoked.jsonl", "1" * 32, "2" * 32
    assert run("revoke", one, "--list", listed, "--why", "stolen").exit_code == 0
    assert run("decommission", two, "--list", listed).exit_code == 0
    assert run("revoke", two, "--list", listed).exit_code == 0
    lines = [json.loads(line) for line in listed.read_text().splitlines()]
    assert [line["device"] for line in lines] == [one, two, two]
    assert lines[0]["why"] == "stolen"
    limits = parse(listed.read_text())
    assert limits == {one: lines[0]["before"], two: FOR_GOOD}
    revocations = Revocations(listed)
    revocations.load()
    soon = Claims(device=one, namespace="tv", channel=CHANNEL, issued_at=limits[one] + 1, expires_at=FOR_GOOD)
    assert not revocations.has_revoked(soon)
    assert revocations.has_revoked(soon.model_copy(update={"issued_at": limits[one]}))
    assert revocations.has_revoked(soon.model_copy(update={"device": two}))
    assert not revocations.has_revoked(soon.model_copy(update={"device": "3" * 32, "issued_at": 0}))


def test_a_line_that_is_no_revocation_is_named_and_nothing_is_added(tmp_path: Path) -> None:
    listed = tmp_path / "revoked.jsonl"
    assert run("revoke", "serial-number-1", "--list", listed).exit_code == 2
    assert not listed.exists()
    listed.write_text('{"device": 1}\n')
    done = run("revoke", "1" * 32, "--list", listed)
    assert (done.exit_code, listed.read_text()) == (2, '{"device": 1}\n')
    assert "line 1" in done.output
