"""What goes through a gateway to a real Prometheus, and what two devices under one id come to."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from dram_agent.gateway.app import Gateway, server_tls
from dram_agent.gateway.refusal import Reason
from dram_agent.gateway.revocations import Revocation, append
from dram_agent.gateway.settings import Backend, GatewaySettings
from dram_agent.identity import issue, load_key, new_key
from dram_agent.otlp import export
from dram_agent.push import Pusher
from dram_agent.settings import Push as PushSettings
from dram_agent.settings import SettingsInvalid
from dram_agent.telemetry import Identity, Telemetry
from tests.agent.gateway.standing_by import NOW, Clock, Place, claims, gateway, telemetry
from tests.agent.prometheus import Series, ask, receiver
from tests.cluster.pki import Authority

DEVICE = "e" * 32


@pytest.fixture(scope="module")
def prometheus() -> Iterator[str]:
    with receiver() as url:
        yield url


def otlp(prometheus: str) -> str:
    return f"{prometheus}/api/v1/otlp/v1/metrics"


@pytest.fixture
async def place(tmp_path: Path, prometheus: str) -> AsyncIterator[Place]:
    async with gateway(tmp_path, otlp(prometheus)) as made:
        yield made


async def found(prometheus: str, query: str, at: float = NOW) -> Series:
    return await asyncio.to_thread(ask, prometheus, query, at)


async def test_everything_that_an_agent_says_goes_through_unchanged_but_for_whose_it_is(
    tmp_path: Path, prometheus: str
) -> None:
    device = "1" * 32
    said = telemetry(device, ring="early")
    said.show_golden(0.75)
    async with gateway(tmp_path, otlp(prometheus)) as place:
        push = place.device(device).then(body=export(said, {}, NOW, NOW - 60))
        assert await place.send(push) == 200
        assert place.counted("dram_gateway_dropped_points_total") == {}
    with receiver() as direct:
        async with aiohttp.ClientSession() as client:
            headers = {"Content-Type": "application/x-protobuf"}
            async with client.post(otlp(direct), data=push.body, headers=headers) as answer:
                assert answer.status == 200
        wanted = await found(direct, '{__name__=~"dram_device.*"}')
    got = await found(prometheus, f'{{__name__=~"dram_device.*",device="{device}"}}')
    stamped = {"namespace": "tv", "job": "tv/dram-agent", "instance": device}
    info = {"__name__": "dram_device_info"}
    assert comparable(got) == comparable(
        [
            ({**labels, **stamped, **({"device_class": "set-top-box"} if info.items() <= labels.items() else {})}, n)
            for labels, n in wanted
        ]
    )
    assert len(got) > 60
    assert await found(prometheus, "target_info") == []


def comparable(series: Series) -> dict[frozenset[tuple[str, str]], float]:
    return {frozenset(labels.items()): value for labels, value in series}


async def test_a_payload_that_claims_to_be_another_is_stamped_with_who_it_is(place: Place, prometheus: str) -> None:
    device, victim = "2" * 32, "3" * 32
    said = Telemetry(Identity("bank/teller", victim, "vault", "1.2.3"))
    said.use("b" * 64)
    resource = {"service.instance.id": victim, "namespace": "bank", "channel": "bank/teller", "device": victim}
    assert await place.send(place.device(device).then(body=export(said, resource, NOW, NOW))) == 200
    assert await found(prometheus, f'{{device="{victim}"}} or {{channel="bank/teller"}} or {{namespace="bank"}}') == []
    assert await found(prometheus, f'{{device_class="vault",device="{device}"}} or {{instance="{victim}"}}') == []
    mine = await found(prometheus, f'{{device="{device}"}}')
    assert {(labels["namespace"], labels["channel"]) for labels, _ in mine} == {("tv", "tv/support-bot")}


async def test_every_sample_is_as_of_the_gateways_clock(place: Place, prometheus: str) -> None:
    """A device's clock may be years off; then Prometheus would refuse it, or believe the future."""
    for number, skew in enumerate((-3e8, 0.0, 3e8)):
        device = f"{number:032x}"
        body = export(telemetry(device), {}, NOW + skew, NOW + skew - 60)
        assert await place.send(place.device(device).then(body=body)) == 200
        [(_, at)] = await found(prometheus, f'timestamp(dram_device_info{{device="{device}"}})')
        assert at == NOW


async def test_a_device_that_was_started_again_goes_on(place: Place) -> None:
    push = place.device(DEVICE)
    for session in ("1" * 32, "2" * 32, "3" * 32):
        for sequence in (1, 2, 7):
            assert await place.send(replace(push, session=session, sequence=sequence)) == 200
            place.pass_time()
    assert place.counted() == {}


async def test_of_two_under_one_id_none_is_believed_until_one_is_gone(place: Place) -> None:
    push = place.device(DEVICE)
    first, second = replace(push, session="1" * 32), replace(push, session="2" * 32)
    statuses = []
    for sequence in range(1, 15):
        for one in (first, second):
            statuses.append(await place.send(replace(one, sequence=sequence)))
            place.pass_time(60)
    assert statuses[:2] == [200, 200]
    assert set(statuses[2:]) == {409}
    statuses = []
    for sequence in range(15, 30):
        statuses.append(await place.send(replace(first, sequence=sequence)))
        place.pass_time(60)
    assert statuses[0] == 409
    assert statuses[-1] == 200
    assert sorted(statuses, reverse=True) == statuses


async def test_a_revoked_device_is_let_in_with_a_newer_token_and_a_decommissioned_one_is_not(place: Place) -> None:
    listed = place.folder / "revoked.jsonl"
    push = place.device(DEVICE)
    assert await place.send(push) == 200
    append(listed, Revocation(device=DEVICE, before=int(NOW), at=int(NOW)))
    place.pass_time()
    assert await place.send(push.then()) == 403
    renewed = issue(place.key, claims(DEVICE, issued_at=int(NOW) + 1))
    assert await place.send(push.then(token=renewed)) == 200
    append(listed, Revocation(device=DEVICE, at=int(NOW), why="scrapped"))
    place.pass_time()
    assert await place.send(push.then(token=renewed)) == 403
    assert place.counted() == {Reason.REVOKED: 2}


async def test_a_list_that_became_unreadable_leaves_the_last_one_in_force(place: Place) -> None:
    listed = place.folder / "revoked.jsonl"
    append(listed, Revocation(device=DEVICE, at=int(NOW)))
    assert await place.send(place.device(DEVICE)) == 403
    assert await stale(place) == 0
    listed.write_text("{")
    assert await place.send(place.device(DEVICE)) == 403
    assert await stale(place) == 1
    listed.write_text("")
    assert await place.send(place.device(DEVICE)) == 200
    assert await stale(place) == 0


async def stale(place: Place) -> float:
    async with TestServer(place.gateway.own_app()) as server, place.client.get(server.make_url("/metrics")) as answer:
        text = await answer.text()
    return float(next(line.split()[1] for line in text.splitlines() if line.startswith("dram_gateway_revocations_st")))


def test_a_list_that_cannot_be_read_at_the_start_keeps_the_gateway_from_starting(tmp_path: Path) -> None:
    new_key(tmp_path / "owner.pem")
    settings = GatewaySettings(
        issuer_keys=(tmp_path / "owner.pem.pub",),
        revocations=tmp_path / "absent",
        backend=Backend(url="http://127.0.0.1:9"),
    )
    with pytest.raises(SettingsInvalid, match="absent"):
        Gateway(settings)


@pytest.mark.parametrize("status", [302, 400, 500, None])
async def test_a_backend_in_trouble_is_the_devices_reason_to_come_again(tmp_path: Path, status: int | None) -> None:
    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status or 200, headers={"Location": "/elsewhere"}, text="secret of the backend")

    app = web.Application()
    app.router.add_post("/v1/metrics", answer)
    async with TestServer(app) as server:
        url = str(server.make_url("/v1/metrics")) if status else "http://127.0.0.1:9/v1/metrics"
        async with gateway(tmp_path, url) as place:
            assert await place.send(place.device()) == 503
            assert place.counted("dram_gateway_backend_failures_total") == {"": 1}
            assert place.counted() == place.counted("dram_gateway_accepted_total") == {}


async def test_a_backend_gets_its_headers_its_token_and_nothing_of_the_devices(tmp_path: Path) -> None:
    seen: list[dict[str, str]] = []

    async def answer(request: web.Request) -> web.Response:
        seen.append(dict(request.headers))
        return web.Response()

    (tmp_path / "backend-token").write_text("s3cret\n")
    app = web.Application()
    app.router.add_post("/v1/metrics", answer)
    async with TestServer(app) as server:
        options = {"headers": {"X-Scope-OrgID": "edge"}, "token_file": tmp_path / "backend-token"}
        async with gateway(tmp_path, str(server.make_url("/v1/metrics")), backend=options) as place:
            assert await place.send(place.device()) == 200
    assert (seen[0]["X-Scope-OrgID"], seen[0]["Authorization"]) == ("edge", "Bearer s3cret")
    assert not [name for name in seen[0] if name.startswith("Dram-")]


async def test_with_client_certificates_a_stolen_token_is_worth_nothing(tmp_path: Path, prometheus: str) -> None:
    """The real agent's pusher over TLS: with its own certificate, with another device's, with none."""
    authority, devices = Authority("servers"), Authority("devices")
    (tmp_path / "ca.crt").write_bytes(authority.certificate)
    (tmp_path / "devices.crt").write_bytes(devices.certificate)
    pair = authority.server("gateway", ("127.0.0.1", "localhost"))
    (tmp_path / "server.pem").write_bytes(pair.certificate + pair.key)
    for name in (DEVICE, "f" * 32):
        client = devices.client(name)
        (tmp_path / f"{name}.pem").write_bytes(client.certificate + client.key)
    new_key(tmp_path / "owner.pem")
    (tmp_path / "token").write_text(issue(load_key(tmp_path / "owner.pem"), claims(DEVICE)))
    settings = GatewaySettings(
        issuer_keys=(tmp_path / "owner.pem.pub",),
        backend=Backend(url=otlp(prometheus)),
        certificate_file=tmp_path / "server.pem",
        client_ca_file=tmp_path / "devices.crt",
    )
    tls = server_tls(settings.certificate_file, settings.client_ca_file)
    made = Gateway(settings, Clock())
    runner = web.AppRunner(made.app())
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=tls)
    await site.start()
    try:
        port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]
        taken = []
        for certificate in (DEVICE, "f" * 32, None):
            push = PushSettings(
                url=f"https://127.0.0.1:{port}/v1/metrics",
                token_file=tmp_path / "token",
                ca_file=tmp_path / "ca.crt",
                certificate_file=tmp_path / f"{certificate}.pem" if certificate else None,
            )
            pusher = Pusher(push, telemetry(DEVICE))
            async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=pusher.tls)) as session:
                taken.append(await pusher.push(session))
    finally:
        await runner.cleanup()
    assert taken == [True, False, False]
    assert made.metrics.registry.get_sample_value("dram_gateway_refused_total", {"cause": "certificate"}) == 1


def test_client_certificates_need_tls(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid, match="certificateFile"):
        server_tls(None, tmp_path / "ca.crt")
    with pytest.raises(SettingsInvalid, match="cannot be read"):
        server_tls(tmp_path / "absent", None)


async def test_a_pusher_lives_with_every_answer_and_without_one(tmp_path: Path, prometheus: str) -> None:
    async with gateway(tmp_path, otlp(prometheus)) as place:
        settings = PushSettings(url=f"{place.url}/v1/metrics", token_file=tmp_path / "token")
        pusher = Pusher(settings, telemetry(DEVICE))
        assert await pusher.push(place.client) is False
        (tmp_path / "token").write_text("no token")
        assert await pusher.push(place.client) is False
        (tmp_path / "token").write_text(issue(place.key, claims(DEVICE)))
        assert await pusher.push(place.client) is True
        assert pusher.sequence == 3
        away = PushSettings(url="http://127.0.0.1:9/v1/metrics")
        assert await Pusher(away, telemetry(DEVICE)).push(place.client) is False


def test_tls_of_a_pusher_is_looked_at_before_the_start(tmp_path: Path) -> None:
    with pytest.raises(SettingsInvalid):
        Pusher(PushSettings(url="https://x", certificate_file=tmp_path / "absent"), telemetry(DEVICE))
    with pytest.raises(SettingsInvalid):
        Pusher(PushSettings(url="https://x", ca_file=tmp_path / "absent"), telemetry(DEVICE))
