"""The attack matrix of the gateway: what is not a known device's own push is refused, counted by cause, and reaches nobody."""

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import jwt
import pytest
from aiohttp import web
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dram_agent.gateway import main
from dram_agent.gateway.refusal import STATUS, Reason
from dram_agent.gateway.revocations import Revocation, append
from dram_agent.identity import issue
from dram_agent.otlp import export
from dram_agent.telemetry import Outcome, ServedBy
from tests.agent.gateway.standing_by import NOW, Place, Push, claims, gateway, telemetry
from tests.agent.prometheus import ask, receiver

DEVICE = "e" * 32
OTHER = "2" * 32


@pytest.fixture(scope="module")
def prometheus() -> Iterator[str]:
    with receiver() as url:
        yield url


@pytest.fixture
async def place(tmp_path: Path, prometheus: str) -> AsyncIterator[Place]:
    async with gateway(tmp_path, f"{prometheus}/api/v1/otlp/v1/metrics", points=200, variants=8) as made:
        yield made


Attack = Callable[[Place], Awaitable[int]]


async def no_token(place: Place) -> int:
    return await place.send(replace(place.device(DEVICE), token=None))


async def no_jwt(place: Place) -> int:
    return await place.send(replace(place.device(DEVICE), token="a.b.c"))


async def too_long_a_token(place: Place) -> int:
    return await place.send(replace(place.device(DEVICE), token=f"{'a' * 4000}.b.c"))


async def signed_by_another_key(place: Place) -> int:
    return await place.send(replace(place.device(DEVICE), token=issue(Ed25519PrivateKey.generate(), claims(DEVICE))))


async def claims_changed_after_signing(place: Place) -> int:
    """A device that wants to be another one."""
    head, body, signature = str(place.device("1" * 32).token).split(".")
    said = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    forged = base64.urlsafe_b64encode(json.dumps({**said, "sub": DEVICE}).encode()).rstrip(b"=").decode()
    return await place.send(replace(place.device(DEVICE), token=f"{head}.{forged}.{signature}"))


async def without_algorithm(place: Place) -> int:
    head = jwt.get_unverified_header(str(place.device(DEVICE).token))
    payload = claims(DEVICE).model_dump(mode="json", by_alias=True)
    token = jwt.encode(payload, "", "none", headers={"kid": head["kid"]})
    return await place.send(replace(place.device(DEVICE), token=f"{token}AA"))


async def public_key_as_a_secret(place: Place) -> int:
    """The algorithm of the token's choice: what everybody knows would be the secret."""
    honest = place.device(DEVICE)
    head = json.dumps({"alg": "HS256", "kid": jwt.get_unverified_header(str(honest.token))["kid"]}).encode()
    body = json.dumps(claims(DEVICE).model_dump(mode="json", by_alias=True)).encode()
    signed = b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (head, body))
    secret = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    mac = base64.urlsafe_b64encode(secret.sign(signed, (place.folder / "owner.pem.pub").read_bytes())).rstrip(b"=")
    return await place.send(replace(honest, token=f"{signed.decode()}.{mac.decode()}"))


async def token_for_something_else(place: Place) -> int:
    payload = {**claims(DEVICE).model_dump(mode="json", by_alias=True), "aud": "another-service"}
    head = jwt.get_unverified_header(str(place.device(DEVICE).token))
    token = jwt.encode(payload, place.key, "EdDSA", headers={"kid": head["kid"]})
    return await place.send(replace(place.device(DEVICE), token=token))


async def channel_of_another_namespace(place: Place) -> int:
    payload = {**claims(DEVICE).model_dump(mode="json", by_alias=True), "namespace": "bank"}
    head = jwt.get_unverified_header(str(place.device(DEVICE).token))
    token = jwt.encode(payload, place.key, "EdDSA", headers={"kid": head["kid"]})
    return await place.send(replace(place.device(DEVICE), token=token))


async def expired(place: Place) -> int:
    return await place.send(place.device(DEVICE, expires_at=int(NOW)))


async def revoked(place: Place) -> int:
    append(place.folder / "revoked.jsonl", Revocation(device=DEVICE, before=int(NOW) - 1, at=int(NOW)))
    return await place.send(place.device(DEVICE))


async def decommissioned(place: Place) -> int:
    append(place.folder / "revoked.jsonl", Revocation(device=DEVICE, at=int(NOW) - 5))
    return await place.send(place.device(DEVICE, issued_at=int(NOW)))


async def replayed(place: Place) -> int:
    return await after_two_honest_pushes(place, lambda push: push)


async def older(place: Place) -> int:
    return await after_two_honest_pushes(place, lambda push: replace(push, sequence=push.sequence - 1))


async def after_two_honest_pushes(place: Place, attack: Callable[[Push], Push]) -> int:
    push = place.device("3" * 32)
    for _ in range(2):
        push = push.then()
        assert await place.send(push) == 200
        place.pass_time()
    return await place.send(attack(push))


async def cloned(place: Place) -> int:
    """Two boxes with the same disk, in turns."""
    push = place.device("4" * 32)
    for session in ("1" * 32, OTHER):
        assert await place.send(replace(push, session=session)) == 200
        place.pass_time()
    return await place.send(push.then())


async def too_often(place: Place) -> int:
    push = place.device("5" * 32)
    for _ in range(4):
        push = push.then()
        assert await place.send(push) == 200
    return await place.send(push.then())


async def oversized(place: Place) -> int:
    return await place.send(replace(place.device(DEVICE), body=b"x" * 262_145))


async def endless(place: Place) -> int:
    async def forever() -> AsyncIterator[bytes]:
        while True:
            yield b"x" * 65_536
            await asyncio.sleep(0)

    return await place.send(replace(place.device(DEVICE), body=forever()))


async def trickling(place: Place) -> int:
    never = asyncio.Event()

    async def forever() -> AsyncIterator[bytes]:
        yield b"x"
        await never.wait()

    return await place.send(replace(place.device(DEVICE), body=forever()))


async def not_protobuf(place: Place) -> int:
    return await place.send(replace(place.device(DEVICE), body=b"\xff" * 100))


async def json_instead(place: Place) -> int:
    return await place.send(replace(place.device(DEVICE), headers={"Content-Type": "application/json"}))


async def compressed(place: Place) -> int:
    """A bomb would unfold behind the limit of bytes."""
    return await place.send(replace(place.device(DEVICE), headers={"Content-Encoding": "gzip"}))


async def without_a_session(place: Place) -> int:
    return await place.send(replace(place.device(DEVICE), session="0"))


async def too_many_points(place: Place) -> int:
    made = telemetry(DEVICE)
    for number in range(200):
        made._requests.labels(channel="x", device=str(number), release="none", outcome="ok", served_by="device")
    body = export(made, {}, NOW, NOW)
    return await place.send(replace(place.device(DEVICE), body=body))


async def new_series_in_every_push(place: Place) -> int:
    """Few at a time, and never the same: a metrics server dies of that."""
    device, status = "6" * 32, 200
    push = place.device(device)
    for number in range(6):
        assert status == 200
        push = push.then(body=export(telemetry(device, build=str(number)), {}, NOW, NOW))
        status = await place.send(push)
        place.pass_time()
    return status


async def requests_that_never_were(place: Place) -> int:
    """One device that wants to decide the error ratio of all."""
    device = "7" * 32
    made, push = telemetry(device), place.device(device)
    assert await place.send(push) == 200
    place.pass_time()
    labels = {"channel": "tv/support-bot", "device": device, "release": "none"}
    made._requests.labels(**labels, outcome=Outcome.ERROR, served_by=ServedBy.DEVICE).inc(100 * 65 + 1)
    return await place.send(push.then(body=export(made, {}, NOW, NOW)))


ATTACKS: dict[Attack, Reason] = {
    no_token: Reason.UNSIGNED,
    no_jwt: Reason.UNSIGNED,
    too_long_a_token: Reason.UNSIGNED,
    signed_by_another_key: Reason.UNSIGNED,
    claims_changed_after_signing: Reason.UNSIGNED,
    without_algorithm: Reason.UNSIGNED,
    public_key_as_a_secret: Reason.UNSIGNED,
    token_for_something_else: Reason.UNSIGNED,
    channel_of_another_namespace: Reason.UNSIGNED,
    expired: Reason.EXPIRED,
    revoked: Reason.REVOKED,
    decommissioned: Reason.REVOKED,
    replayed: Reason.REPLAYED,
    older: Reason.REPLAYED,
    cloned: Reason.CLONED,
    too_often: Reason.TOO_OFTEN,
    oversized: Reason.OVERSIZED,
    endless: Reason.OVERSIZED,
    trickling: Reason.SLOW,
    not_protobuf: Reason.MALFORMED,
    json_instead: Reason.MALFORMED,
    compressed: Reason.MALFORMED,
    without_a_session: Reason.MALFORMED,
    too_many_points: Reason.TOO_MANY_SERIES,
    new_series_in_every_push: Reason.TOO_MANY_SERIES,
    requests_that_never_were: Reason.IMPLAUSIBLE,
}


@pytest.mark.parametrize("attack", ATTACKS, ids=lambda attack: attack.__name__)
async def test_an_attack_is_refused_and_counted_and_reaches_nobody(
    place: Place, prometheus: str, attack: Attack
) -> None:
    reason = ATTACKS[attack]
    before = await taken(place)
    assert await attack(place) == STATUS[reason]
    assert place.counted() == {reason: 1}
    assert await series(prometheus, DEVICE) == 0
    accepted = await taken(place)
    honest = place.device()
    assert await place.send(honest) == 200
    assert await taken(place) == accepted + 1
    assert before == 0


async def taken(place: Place) -> float:
    return place.counted("dram_gateway_accepted_total").get("", 0.0)


async def series(prometheus: str, device: str) -> int:
    found = await asyncio.to_thread(partial(ask, prometheus, f'{{device="{device}"}}', NOW + 60))
    return len(found)


@pytest.mark.parametrize("sent", [b"", b"POST /v1/metrics HTTP/1.1\r\nHost: gateway\r\nAuthorization: "])
async def test_a_connection_that_never_asks_is_not_kept(sent: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(main, "IDLE_SECONDS", 0.1)
    runner = await main.listen(web.Application(), "127.0.0.1:0", None)
    reader, writer = await asyncio.open_connection("127.0.0.1", runner.addresses[0][1])
    writer.write(sent)
    assert await asyncio.wait_for(reader.read(), 10) == b""
    writer.close()
    await runner.cleanup()
