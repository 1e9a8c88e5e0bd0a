"""The endpoint with a real model: who answers, and what is counted, when all is well and when it is not."""

import asyncio
import json
import os
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from dram_agent.errors import NotServing
from dram_agent.local import HANG_SECONDS, LocalRuntime
from dram_agent.serve import ServeSettings
from dram_agent.slots import Slot
from tests.agent.serving import (
    A_RELEASE,
    ARTIFACT,
    B_RELEASE,
    HELLO,
    endpoint,
    held,
    in_thread,
    local_runtime,
    sample,
    serve_and_wait,
    until,
)
from tests.cluster.pki import Authority

REQUESTS = "dram_device_requests_total"
FALLBACKS = "dram_device_fallbacks_total"


@pytest.fixture
def local(tmp_path: Path, tiny_gguf: Path) -> Iterator[LocalRuntime]:
    runtime = local_runtime(tmp_path / "device", tiny_gguf, context_tokens=4096)
    yield runtime
    runtime.close()


@pytest.fixture
def serving(local: LocalRuntime) -> LocalRuntime:
    """It answers."""
    serve_and_wait(local)
    return local


def process(local: LocalRuntime) -> int:
    assert local._serving is not None
    return local._serving.child.pid


def fallbacks(local: LocalRuntime) -> dict[str, float | None]:
    return {cause: sample(local, FALLBACKS, cause=cause) for cause in ("overload", "timeout", "crash", "unhealthy")}


async def test_the_device_answers_chat_completions_and_streams(serving: LocalRuntime) -> None:
    async with endpoint(serving) as client:
        status, chat = await client.ask(HELLO)
        assert (status, chat["model"]) == (200, A_RELEASE)
        assert chat["choices"][0]["message"]["role"] == "assistant"
        status, text = await client.ask({"prompt": "Hello", "max_tokens": 3}, "/v1/completions")
        assert (status, text["object"]) == (200, "text_completion")
        async with client.session.post(f"{client.url}/v1/chat/completions", json={**HELLO, "stream": True}) as answer:
            lines = [line async for line in answer.content if line.strip()]
        assert answer.content_type == "text/event-stream"
        assert lines[-1].strip() == b"data: [DONE]"
        assert json.loads(lines[0].removeprefix(b"data: "))["object"] == "chat.completion.chunk"
        async with client.session.get(f"{client.url}/health") as answer:
            assert await answer.json() == {"status": "ok", "servedBy": "device", "release": A_RELEASE}
        async with client.session.get(f"{client.url}/v1/models") as answer:
            assert [each["id"] for each in (await answer.json())["data"]] == [A_RELEASE]
        assert client.cloud.seen == []
    assert sample(serving, REQUESTS, outcome="ok", served_by="device") == 3
    assert sample(serving, "dram_device_request_seconds_count", served_by="device") == 3
    assert sample(serving, "dram_device_healthy", release=A_RELEASE) == 1
    memory = sample(serving, "dram_device_memory_bytes", release=A_RELEASE)
    assert memory is not None
    assert memory > 10 << 20


async def test_a_bad_request_is_the_callers_fault_and_stays_here(serving: LocalRuntime) -> None:
    async with endpoint(serving) as client:
        assert (await client.ask({"no": "messages"}))[0] == 400
        assert (await client.ask(["no", "object"]))[0] == 400
        async with client.session.post(f"{client.url}/v1/completions", data=b"{") as answer:
            assert answer.status == 400
        assert client.cloud.seen == []
    assert sample(serving, REQUESTS, outcome="invalid", served_by="device") == 3
    assert sum(value or 0 for value in fallbacks(serving).values()) == 0


async def test_without_a_model_the_cloud_answers_with_its_own_key_and_model(
    local: LocalRuntime, tmp_path: Path
) -> None:
    key = tmp_path / "key"
    key.write_text("cloud-key\n")
    async with endpoint(local, key_file=key) as client:
        status, body = await client.ask(HELLO)
        assert (status, body["choices"][0]["message"]["content"]) == (200, "from the cloud")
        assert client.cloud.seen == [("/v1/chat/completions", {**HELLO, "model": "big-model"}, "Bearer cloud-key")]
        async with client.session.get(f"{client.url}/health") as answer:
            assert (answer.status, (await answer.json())["servedBy"]) == (200, "cloud")
    assert fallbacks(local) == {"overload": 0, "timeout": 0, "crash": 0, "unhealthy": 1}
    assert sample(local, REQUESTS, outcome="ok", served_by="cloud", release="none") == 1


@pytest.mark.parametrize(("trusted", "want"), [(True, 200), (False, 502)])
async def test_a_cloud_is_trusted_by_the_authority_that_the_owner_names(
    local: LocalRuntime, tmp_path: Path, trusted: bool, want: int
) -> None:
    authority, other = Authority(), Authority("other")
    (tmp_path / "ca.crt").write_bytes((authority if trusted else other).certificate)
    authority.server("cloud", ("127.0.0.1",)).write(tmp_path, "cloud")
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(tmp_path / "cloud.crt", tmp_path / "cloud.key")
    async with endpoint(local, ca_file=tmp_path / "ca.crt", tls=tls) as client:
        assert (await client.ask(HELLO))[0] == want


async def test_without_a_model_and_a_cloud_it_says_so(local: LocalRuntime) -> None:
    async with endpoint(local, with_cloud=False) as client:
        status, body = await client.ask(HELLO)
        assert (status, body["error"]["type"]) == (503, "unavailable")
        async with client.session.get(f"{client.url}/health") as answer:
            assert answer.status == 503
    assert sample(local, REQUESTS, outcome="error", served_by="device") == 1


async def test_a_cloud_that_fails_is_an_error_of_the_cloud(local: LocalRuntime) -> None:
    async with endpoint(local) as client:
        client.cloud.status = 500
        assert (await client.ask(HELLO))[0] == 502
    assert sample(local, REQUESTS, outcome="error", served_by="cloud") == 1


async def test_more_requests_than_the_model_takes_go_to_the_cloud(serving: LocalRuntime) -> None:
    busy = serving.acquire()
    assert busy is not None
    async with endpoint(serving) as client:
        await client.ask(HELLO)
        assert len(client.cloud.seen) == 1
        serving.release(busy)
        await client.ask(HELLO)
        assert len(client.cloud.seen) == 1
    assert fallbacks(serving) == {"overload": 1, "timeout": 0, "crash": 0, "unhealthy": 0}


@pytest.mark.parametrize("stream", [False, True])
async def test_a_model_that_hangs_is_timed_out(serving: LocalRuntime, stream: bool) -> None:
    os.kill(process(serving), signal.SIGSTOP)
    limits = ServeSettings(first_seconds=0.3, answer_seconds=0.3)
    async with endpoint(serving, limits) as client:
        status, _ = await client.ask({**HELLO, "stream": stream})
        assert status == 200
        assert len(client.cloud.seen) == 1
    assert fallbacks(serving) == {"overload": 0, "timeout": 1, "crash": 0, "unhealthy": 0}


async def test_a_model_that_crashes_during_a_request_is_answered_by_the_cloud(serving: LocalRuntime) -> None:
    os.kill(process(serving), signal.SIGSTOP)
    async with endpoint(serving) as client:
        asked = asyncio.create_task(client.ask(HELLO))
        await in_thread(lambda: serving._serving is not None and serving._serving.in_flight == 1)
        os.kill(process(serving), signal.SIGKILL)
        status, _ = await asked
        assert status == 200
        assert len(client.cloud.seen) == 1
    assert fallbacks(serving) == {"overload": 0, "timeout": 0, "crash": 1, "unhealthy": 0}


async def test_a_stream_that_breaks_off_ends_with_an_error(serving: LocalRuntime) -> None:
    async with endpoint(serving) as client:
        long = {**HELLO, "stream": True, "max_tokens": 4000, "ignore_eos": True}
        async with client.session.post(f"{client.url}/v1/chat/completions", json=long) as answer:
            first = await answer.content.readline()
            os.kill(process(serving), signal.SIGKILL)
            rest = await answer.content.read()
        assert first.startswith(b"data: ")
        assert b"broke off" in rest
        assert client.cloud.seen == []
    assert sample(serving, REQUESTS, outcome="error", served_by="device") == 1


async def test_a_switch_lets_the_old_model_finish(serving: LocalRuntime) -> None:
    old = serving.acquire()
    assert old is not None
    assert serving.test(Slot.B, held(B_RELEASE), ARTIFACT) is None
    serving.serve(Slot.B, held(B_RELEASE))
    serving.watch()
    async with endpoint(serving) as client:
        assert (await client.ask(HELLO))[1]["model"] == B_RELEASE
        assert client.cloud.seen == []
    assert old.child.is_alive()
    serving.release(old)
    serving.watch()
    assert not old.child.is_alive()


async def test_an_answer_that_outlives_a_switch_is_the_old_releases(serving: LocalRuntime) -> None:
    old = process(serving)
    async with endpoint(serving) as client:
        asked = {**HELLO, "stream": True, "max_tokens": 500, "ignore_eos": True}
        async with client.session.post(f"{client.url}/v1/chat/completions", json=asked) as answer:
            await answer.content.readany()
            os.kill(old, signal.SIGSTOP)
            assert await asyncio.to_thread(serving.test, Slot.B, held(B_RELEASE), ARTIFACT) is None
            await asyncio.to_thread(serving.serve, Slot.B, held(B_RELEASE))
            os.kill(old, signal.SIGCONT)
            await answer.read()
        counted = {each: sample(serving, REQUESTS, release=each, outcome="ok") for each in (A_RELEASE, B_RELEASE)}
    assert counted == {A_RELEASE: 1, B_RELEASE: 0}


def test_a_model_that_was_just_tested_serves_from_the_moment_of_the_switch(
    serving: LocalRuntime, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert serving.test(Slot.B, held(B_RELEASE), ARTIFACT) is None
    monkeypatch.setattr(serving, "watch", lambda: None)
    serving.serve(Slot.B, held(B_RELEASE))
    backend = serving.acquire()
    assert backend is not None
    assert backend.held.release == B_RELEASE


def test_draining_has_an_end(serving: LocalRuntime) -> None:
    old = serving.acquire()
    assert old is not None
    serving.drain_seconds = 0
    serving.stop()
    serving.watch()
    assert not old.child.is_alive()


def test_a_process_that_dies_is_started_again_later_and_later_each_counted_before(serving: LocalRuntime) -> None:
    starts: list[int] = []
    serving.before_start = lambda: starts.append(1)
    now = serving.monotonic()
    serving.monotonic = lambda: now
    for pause in (1, 2, 4):
        os.kill(process(serving), signal.SIGKILL)
        until(lambda: serving._serving is None, serving)
        assert sample(serving, "dram_device_healthy") == 0
        now += pause - 0.5
        serving.watch()
        assert serving._serving is None
        now += 0.5
        serving.watch()
        assert serving.is_starting()
        until(lambda: serving.healthy_since() is not None, serving)
    assert len(starts) == 3


def test_a_process_that_cannot_be_started_is_tried_again(local: LocalRuntime, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_process(*_: object) -> None:
        raise OSError(11, "Resource temporarily unavailable")

    with monkeypatch.context() as patch:
        patch.setattr("dram_agent.local.Child", no_process)
        local.serve(Slot.A, held(A_RELEASE))
        with pytest.raises(NotServing):
            local.acquire()
    until(lambda: local.healthy_since() is not None, local)


def test_a_process_that_hangs_is_ended_and_started_again(serving: LocalRuntime) -> None:
    now = serving.monotonic()
    serving.monotonic = lambda: now
    pid = process(serving)
    os.kill(pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T"), serving)
    serving.watch()
    assert serving.healthy_since() is None
    now += HANG_SECONDS
    serving.watch()
    assert process(serving) == pid
    now += 1
    serving.watch()
    assert not Path(f"/proc/{pid}").exists()
    now += 1
    until(lambda: serving.healthy_since() is not None, serving)


def test_a_clock_that_is_set_makes_nobody_healthy_for_longer(serving: LocalRuntime) -> None:
    before = serving.healthy_since()
    assert before is not None
    wall = serving.wall
    serving.wall = lambda: wall() + 86_400
    after = serving.healthy_since()
    assert after is not None
    assert after > before + 86_000


def test_no_process_is_left(serving: LocalRuntime) -> None:
    pid = process(serving)
    serving.close()
    assert not Path(f"/proc/{pid}").exists()
