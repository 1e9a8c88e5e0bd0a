"""The metrics client: against a real Prometheus, and against a server that does everything wrong."""

import asyncio
import gzip
import json
import logging
import ssl
from collections.abc import Iterator
from datetime import datetime, timedelta
from math import inf, isnan
from pathlib import Path
from typing import Any

import pytest

from dram_operator.adapters.prometheus import Endpoint, EndpointInvalid, GuardedResolver, Prometheus, is_link_local
from dram_operator.core.rollout.answers import Answer, Sample, Trouble
from dram_operator.core.rollout.presets import Arm, Context, own_queries
from tests.cluster.pki import Authority
from tests.cluster.prometheus import PASSWORD, USER, PrometheusServer
from tests.operator.adapters.misbehaving import Behaviour, answering, endless, misbehaving, raw, silent
from tests.operator.core.rollout.fleet_history import CANDIDATE, CHANNEL, START, Teller, history

NOW = START + timedelta(minutes=10)
SECRET = "internal-secret-of-another-service"
FLEET = (Teller("a", "treated", golden=0.5), Teller("b", "control"))


def vector(*series: dict[str, object]) -> str:
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": series}})


def point(text: object = "1", **labels: str) -> dict[str, object]:
    return {"metric": labels, "value": [1, text]}


async def ask(behave: Behaviour, **settings: Any) -> Answer:
    async with misbehaving(behave) as server:
        return await asked(server.url, **settings)


async def asked(url: str, query: str = "up", **settings: Any) -> Answer:
    client = Prometheus(Endpoint("default", url, **settings))
    try:
        return await client.query(query, NOW)
    finally:
        await client.close()


@pytest.fixture(scope="module")
def prometheus() -> Iterator[PrometheusServer]:
    with PrometheusServer(history(*FLEET)) as server:
        yield server


@pytest.fixture(scope="module")
def guarded() -> Iterator[PrometheusServer]:
    with PrometheusServer(history(*FLEET), guarded=True) as server:
        yield server


class TestRealPrometheus:
    async def test_it_is_asked_as_of_the_time_that_the_caller_says(self, prometheus: PrometheusServer) -> None:
        client = Prometheus(Endpoint("default", prometheus.url))
        found = [(await client.query("time()", at)).samples[0].value for at in (NOW, START)]
        before = await client.query("dram_device_info", START - timedelta(days=1))
        await client.close()
        assert found == [NOW.timestamp(), START.timestamp()]
        assert before == Answer()

    @pytest.mark.parametrize(
        ("query", "want"),
        [("vector(1) / 0", inf), ("-vector(1) / 0", -inf), ("scalar(vector(3))", 3.0), ("vector(0.25)", 0.25)],
    )
    async def test_numbers_come_as_they_are(self, prometheus: PrometheusServer, query: str, want: float) -> None:
        assert (await asked(prometheus.url, query)).samples == (Sample({}, want),)

    async def test_no_requests_make_nan(self, prometheus: PrometheusServer) -> None:
        assert isnan((await asked(prometheus.url, "vector(0) / 0")).samples[0].value)

    async def test_several_series_come_with_their_labels(self, prometheus: PrometheusServer) -> None:
        found = (await asked(prometheus.url, "dram_device_golden_pass_ratio")).samples
        assert {(sample.labels["device"], sample.value) for sample in found} == {("a", 0.5), ("b", 1.0)}

    @pytest.mark.parametrize("query", ["sum by (", "up[5m]", '"text"'])
    async def test_what_has_no_value_is_trouble(self, prometheus: PrometheusServer, query: str) -> None:
        assert (await asked(prometheus.url, query)).trouble in (Trouble.HTTP_STATUS, Trouble.MALFORMED)

    @pytest.mark.parametrize(("minutes", "want"), [(0, NOW), (2, NOW), (4, NOW)])
    async def test_a_look_knows_the_age_of_what_it_rests_on(
        self, prometheus: PrometheusServer, minutes: int, want: datetime
    ) -> None:
        client = Prometheus(Endpoint("default", prometheus.url))
        queries = own_queries(
            "sum(rate(dram_device_requests_total[10m])) or vector(0)", Context(CHANNEL, 7, 60, CANDIDATE)
        )
        look = await client.look(queries, NOW + timedelta(minutes=minutes))
        await client.close()
        assert look.newest == want

    async def test_a_selector_without_samples_leaves_the_age_unknown(self, prometheus: PrometheusServer) -> None:
        client = Prometheus(Endpoint("default", prometheus.url))
        queries = own_queries(
            "max(dram_device_golden_pass_ratio) + (sum(absent_metric) or vector(0))", Context(CHANNEL, 7, 60, CANDIDATE)
        )
        look = await client.look(queries, NOW)
        await client.close()
        assert (look.samples, look.newest) == ((Sample({}, 1.0),), None)

    async def test_a_look_counts_the_requests_to_the_candidate_in_its_arm(self, prometheus: PrometheusServer) -> None:
        client = Prometheus(Endpoint("default", prometheus.url))
        support = [
            (await client.look(own_queries("max(dram_device_golden_pass_ratio)", context), NOW)).support
            for context in (
                Context(CHANNEL, 7, 60, CANDIDATE),
                Context(CHANNEL, 7, 60, CANDIDATE, step_seconds=300),
                Context(CHANNEL, 7, 60, CANDIDATE, arm=Arm.CONTROL),
                Context(CHANNEL, 8, 60, CANDIDATE),
            )
        ]
        await client.close()
        assert support == [pytest.approx(120), pytest.approx(600), 0.0, 0.0]

    async def test_an_outage_is_trouble_and_then_over(self) -> None:
        with PrometheusServer(history(*FLEET)) as server:
            client = Prometheus(Endpoint("default", server.url))
            before = await client.query("vector(1)", NOW)
            server.stop()
            during = await client.query("vector(1)", NOW)
            server.start()
            after = await client.query("vector(1)", NOW)
            await client.close()
        assert (before, during.trouble, after) == (after, Trouble.UNREACHABLE, before)

    async def test_a_private_authority_and_a_password_open_the_door(
        self, guarded: PrometheusServer, tmp_path: Path
    ) -> None:
        (tmp_path / "password").write_text(f"{PASSWORD}\n")
        (tmp_path / "wrong").write_text("wrong")
        settings = {"ca_file": guarded.ca_file, "username": USER, "password_file": tmp_path / "password"}
        assert (await asked(guarded.url, "vector(1)", **settings)).samples == (Sample({}, 1.0),)
        wrong = await asked(guarded.url, "vector(1)", **settings | {"password_file": tmp_path / "wrong"})
        assert wrong.trouble is Trouble.HTTP_STATUS
        untrusted = await asked(guarded.url, "vector(1)", **settings | {"ca_file": None})
        assert untrusted.trouble is Trouble.UNREACHABLE


TROUBLES: dict[str, tuple[Behaviour, Trouble]] = {
    "400": (answering(SECRET, "400 Bad Request"), Trouble.HTTP_STATUS),
    "401": (answering(SECRET, "401 Unauthorized"), Trouble.HTTP_STATUS),
    "404": (answering(vector(point()), "404 Not Found"), Trouble.HTTP_STATUS),
    "500": (answering(SECRET, "500 Internal Server Error"), Trouble.HTTP_STATUS),
    "503 with an answer": (answering(vector(point()), "503 Service Unavailable"), Trouble.HTTP_STATUS),
    "204": (answering("", "204 No Content"), Trouble.HTTP_STATUS),
    "301": (answering("", "301 Moved", "Location: /elsewhere\r\n"), Trouble.REDIRECTED),
    "307": (answering("", "307 Temporary", "Location: http://169.254.169.254/\r\n"), Trouble.REDIRECTED),
    "no JSON": (answering(f"<html>{SECRET}</html>"), Trouble.MALFORMED),
    "no text": (answering(b"\xff\xfe\x00"), Trouble.MALFORMED),
    "half a JSON": (answering(vector(point())[:-3]), Trouble.MALFORMED),
    "nothing": (answering(""), Trouble.MALFORMED),
    "a number": (answering("7"), Trouble.MALFORMED),
    "null": (answering("null"), Trouble.MALFORMED),
    "a deep nest": (answering("[" * 200_000), Trouble.MALFORMED),
    "an error": (answering(json.dumps({"status": "error", "error": SECRET})), Trouble.MALFORMED),
    "no data": (answering('{"status": "success"}'), Trouble.MALFORMED),
    "data of another shape": (answering('{"status": "success", "data": [1]}'), Trouble.MALFORMED),
    "a matrix": (
        answering('{"status":"success","data":{"resultType":"matrix","result":[{"metric":{},"values":[[1,"1"]]}]}}'),
        Trouble.MALFORMED,
    ),
    "no value": (answering(vector({"metric": {}})), Trouble.MALFORMED),
    "three values": (answering(vector({"metric": {}, "value": [1, "1", "1"]})), Trouble.MALFORMED),
    "a number for a text": (answering(vector(point(1))), Trouble.MALFORMED),
    "a word for a number": (answering(vector(point(SECRET))), Trouble.MALFORMED),
    "a label that is no text": (answering(vector({"metric": {"a": 1}, "value": [1, "1"]})), Trouble.MALFORMED),
    "labels that are none": (answering(vector({"metric": ["a"], "value": [1, "1"]})), Trouble.MALFORMED),
    "a warning": (
        answering('{"status":"success","warnings":["a store is away"],"data":{"resultType":"vector","result":[]}}'),
        Trouble.PARTIAL,
    ),
    "compressed": (
        answering(gzip.compress(vector(point()).encode()), headers="Content-Encoding: gzip\r\n"),
        Trouble.MALFORMED,
    ),
    "endless": (endless, Trouble.TOO_LARGE),
    "cut off": (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"), Trouble.UNREACHABLE),
    "no HTTP": (raw(b"SSH-2.0-OpenSSH_9.2\r\n"), Trouble.UNREACHABLE),
    "hung up": (raw(b""), Trouble.UNREACHABLE),
    "a huge header": (raw(b"HTTP/1.1 200 OK\r\nA: " + b"x" * 100_000 + b"\r\n\r\n"), Trouble.UNREACHABLE),
}


@pytest.mark.parametrize(("behave", "want"), TROUBLES.values(), ids=TROUBLES.keys())
async def test_every_misbehaviour_is_a_trouble_and_leaves_nothing_behind(
    behave: Behaviour, want: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "dram_operator")
    found = await ask(behave, largest_answer_bytes=1 << 20)
    assert found == Answer(trouble=want)
    assert SECRET not in caplog.text


async def test_a_server_that_says_nothing_is_not_waited_for() -> None:
    assert (await ask(silent, timeout_seconds=0.05)).trouble is Trouble.TIMED_OUT


async def test_an_answer_that_drips_is_not_waited_for() -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while not writer.is_closing():
            writer.write(b" ")
            await asyncio.sleep(0.01)

    assert (await ask(drip, timeout_seconds=0.1)).trouble is Trouble.TIMED_OUT


async def test_an_answer_up_to_the_limit_is_read() -> None:
    body = vector(point("0.5", device="a"))
    assert (await ask(answering(body), largest_answer_bytes=len(body))).samples == (Sample({"device": "a"}, 0.5),)
    assert (await ask(answering(body), largest_answer_bytes=len(body) - 1)).trouble is Trouble.TOO_LARGE


async def test_a_redirect_is_not_followed() -> None:
    async with misbehaving(answering(vector(point()))) as target:
        moved = answering("", "302 Found", f"Location: {target.url}/api/v1/query\r\n")
        assert (await ask(moved)).trouble is Trouble.REDIRECTED
        assert target.requests == []


async def test_trouble_with_any_of_a_looks_queries_is_trouble_with_the_look() -> None:
    asked_for = 0

    async def third_time_unlucky(writer: asyncio.StreamWriter) -> None:
        nonlocal asked_for
        asked_for += 1
        await answering(vector(point()) if asked_for < 3 else "no")(writer)

    async with misbehaving(third_time_unlucky) as server:
        client = Prometheus(Endpoint("default", server.url))
        look = await client.look(own_queries("max(up)", Context(CHANNEL, 7, 60, CANDIDATE)), NOW)
        await client.close()
    assert look == Answer(trouble=Trouble.MALFORMED)


@pytest.mark.parametrize("text", ["-1", str(NOW.timestamp() + 60), "NaN", "+Inf"])
async def test_a_sample_from_no_time_or_from_the_future_has_no_age(text: str) -> None:
    async with misbehaving(answering(vector(point(text)))) as server:
        client = Prometheus(Endpoint("default", server.url))
        look = await client.look(own_queries("max(up)", Context(CHANNEL, 7, 60, CANDIDATE)), NOW)
        await client.close()
    assert look.newest is None


async def test_credentials_and_headers_are_sent_and_renewed(tmp_path: Path) -> None:
    token = tmp_path / "token"
    token.write_text("first\n")
    async with misbehaving(answering(vector())) as server:
        endpoint = Endpoint("default", f"{server.url}/prom/", token_file=token, headers={"X-Scope-OrgID": "tv"})
        client = Prometheus(endpoint)
        await client.query("up", NOW)
        token.write_text("second")
        await client.query("up", NOW)
        token.unlink()
        missing = await client.query("up", NOW)
        token.write_text("a\nb")
        broken = await client.query("up", NOW)
        await client.close()
    assert [headers["authorization"] for _, headers, _ in server.requests] == ["Bearer first", "Bearer second"]
    assert (missing.trouble, broken.trouble) == (Trouble.UNREACHABLE, Trouble.UNREACHABLE)
    line, headers, form = server.requests[0]
    assert line == "POST /prom/api/v1/query HTTP/1.1"
    assert headers["x-scope-orgid"] == "tv"
    assert headers["accept-encoding"] == "identity"
    assert (form["query"], form["time"]) == (["up"], [f"{NOW.timestamp():.3f}"])
    assert "tv" not in repr(endpoint)


async def test_a_client_certificate_is_shown(tmp_path: Path) -> None:
    authority = Authority()
    authority.server("metrics", ("127.0.0.1",)).write(tmp_path, "server")
    pair = authority.client("operator")
    (tmp_path / "client.pem").write_bytes(pair.certificate + pair.key)
    (tmp_path / "ca.pem").write_bytes(authority.certificate)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=str(tmp_path / "ca.pem"))
    context.load_cert_chain(tmp_path / "server.crt", tmp_path / "server.key")
    context.verify_mode = ssl.CERT_REQUIRED
    async with misbehaving(answering(vector(point())), context) as server:
        known = await asked(server.url, ca_file=tmp_path / "ca.pem", certificate_file=tmp_path / "client.pem")
        stranger = await asked(server.url, ca_file=tmp_path / "ca.pem")
    assert known.samples == (Sample({}, 1.0),)
    assert stranger.trouble is Trouble.UNREACHABLE


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/",
        "http://[fe80::1]:9090",
        "http://[fe80::1%25eth0]:9090",
        "http://[::ffff:169.254.169.254]",
        "file:///etc/passwd",
        "ftp://prometheus",
        "prometheus:9090",
        "http://",
        "http://user:password@prometheus:9090",
        "http://prometheus:9090?match=up",
    ],
)
def test_an_endpoint_that_cannot_be_is_refused(url: str) -> None:
    with pytest.raises(EndpointInvalid, match="endpoint default"):
        Prometheus(Endpoint("default", url))


@pytest.mark.parametrize("host", ["2852039166", "0xa9fea9fe", "169.254.43518"])
async def test_a_name_that_means_a_link_local_address_is_refused(host: str) -> None:
    with pytest.raises(OSError, match="link-local"):
        await GuardedResolver().resolve(host, 80)
    assert (await asked(f"http://{host}")).trouble is Trouble.UNREACHABLE


@pytest.mark.parametrize(
    ("address", "want"),
    [("169.254.0.1", True), ("fe80::1%eth0", True), ("::ffff:169.254.1.1", True), ("10.0.0.1", False), ("::1", False)],
)
def test_link_local_addresses_are_known_in_every_form(address: str, want: bool) -> None:
    assert is_link_local(address) is want
