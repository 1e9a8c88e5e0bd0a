"""The client of an OpenAI-compatible endpoint, against llama.cpp's server."""

import logging
import threading

import pytest

from dram_workers.endpoint import KEY as KEY_NAME
from dram_workers.endpoint import Asked, Endpoint, Patience, check_endpoint, seed_of
from dram_workers.endpoint_model import EndpointModel
from dram_workers.errors import BadInput, Interrupted, NoPermission, StageError, Transient, WorkerReason
from tests.workers.chat_server import KEY, ChatServer, Fault

QUICK = Patience(tries=3, first_wait_seconds=0.001)
LIMITED = {"error": {"message": "Rate limit reached", "code": "rate_limit_exceeded"}}


def asked(text: str = "Hello", *, tokens: int = 8, temperature: float = 0.0, draw: int = 0) -> Asked:
    return Asked([{"role": "user", "content": text}], tokens, temperature, seed_of(1, draw))


def refusal(server: ChatServer, *faults: Fault) -> StageError:
    server.faults.extend(faults)
    with Endpoint(server.model(), threading.Event(), QUICK) as endpoint, pytest.raises(StageError) as caught:
        endpoint.answer(asked())
    assert caught.value.remedy
    assert KEY not in caught.value.message
    return caught.value


def test_answers_come_in_the_order_of_the_questions(chat_server: ChatServer) -> None:
    questions = [asked(f"Question {number}", tokens=3 + number) for number in range(6)]
    with Endpoint(chat_server.model(), threading.Event()) as endpoint:
        together = list(endpoint.answers(questions, concurrency=4))
        alone = [endpoint.answer(question) for question in questions]
    assert together == alone
    assert [reply.tokens for reply in together] == [3, 4, 5, 6, 7, 8]
    assert not any(reply.finished for reply in together)


def test_sampling_follows_the_seed(chat_server: ChatServer) -> None:
    def written(draw: int) -> str:
        return endpoint.answer(asked(temperature=1.5, draw=draw, tokens=16)).text

    with Endpoint(chat_server.model(), threading.Event()) as endpoint:
        assert written(1) == written(1)
        assert len({written(draw) for draw in range(4)}) > 1
    assert {request["model"] for request in chat_server.requests} == {"tiny"}
    assert 0 <= seed_of(1, 2) < 2**31


def test_a_busy_endpoint_is_asked_again_and_says_when(chat_server: ChatServer) -> None:
    chat_server.faults += [Fault(429, LIMITED, {"Retry-After": "0"}), Fault(503, "overloaded")]
    with Endpoint(chat_server.model(), threading.Event(), QUICK) as endpoint:
        assert endpoint.answer(asked()).text
    assert len(chat_server.requests) == 3


def test_an_endpoint_that_stays_busy_is_left_for_another_attempt(chat_server: ChatServer) -> None:
    error = refusal(chat_server, *[Fault(429, LIMITED)] * 3)
    assert isinstance(error, Transient)
    assert (error.reason, error.field) == (WorkerReason.ENDPOINT_UNAVAILABLE, "spec.teacher.endpoint.url")
    assert "Rate limit reached" in error.message


def test_an_endpoint_that_is_not_there_is_named() -> None:
    nowhere = EndpointModel(url="http://127.0.0.1:1/v1", model="tiny")
    with Endpoint(nowhere, threading.Event(), QUICK) as endpoint, pytest.raises(Transient, match="after 3 tries"):
        endpoint.answer(asked())


def test_a_wrong_key_goes_back_to_the_secret_and_is_never_shown(
    chat_server: ChatServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    check_endpoint(chat_server.model(), threading.Event())
    assert chat_server.keys[-1] == f"Bearer {KEY}"
    monkeypatch.setenv(KEY_NAME, "sk-wrong")
    error = refusal(chat_server)
    assert isinstance(error, NoPermission)
    assert (error.reason, error.field) == (WorkerReason.ENDPOINT_DENIED, "spec.teacher.endpoint.secretRef")
    assert "Invalid API Key" in error.message
    monkeypatch.delenv(KEY_NAME)
    assert "without a key" in refusal(chat_server).message
    assert KEY not in caplog.text
    assert "sk-wrong" not in caplog.text


def test_a_key_that_the_endpoint_repeats_is_taken_out(chat_server: ChatServer) -> None:
    assert "…" in refusal(chat_server, Fault(401, {"error": {"message": f"Incorrect API key: {KEY}"}})).message


def test_a_quota_that_is_used_up_is_not_waited_for(chat_server: ChatServer) -> None:
    body = {"error": {"message": "You exceeded your current quota", "code": "insufficient_quota"}}
    assert isinstance(refusal(chat_server, Fault(429, body)), NoPermission)
    assert len(chat_server.requests) == 1


@pytest.mark.parametrize(
    ("fault", "want_field"),
    [
        (Fault(404, {"error": {"message": "The model `tiny` does not exist", "code": "model_not_found"}}), "model"),
        (Fault(404, "Not Found"), "url"),
        (Fault(200, "<html>welcome</html>"), "url"),
        (Fault(200, {"choices": []}), "url"),
        (Fault(422, {"detail": "unknown model"}), "model"),
    ],
)
def test_what_no_waiting_helps_against_is_refused_at_once(
    chat_server: ChatServer, fault: Fault, want_field: str
) -> None:
    error = refusal(chat_server, fault)
    assert isinstance(error, BadInput)
    assert (error.reason, error.field) == (WorkerReason.ENDPOINT_REFUSED, f"spec.teacher.endpoint.{want_field}")
    assert len(chat_server.requests) == 1


def test_a_prompt_beyond_the_context_is_refused_in_the_servers_own_words(chat_server: ChatServer) -> None:
    with (
        Endpoint(chat_server.model(), threading.Event(), QUICK) as endpoint,
        pytest.raises(BadInput, match="context size"),
    ):
        endpoint.answer(asked("Hi " * 3000))


def test_the_limit_is_told_by_the_name_that_the_endpoint_knows(chat_server: ChatServer) -> None:
    said = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    chat_server.faults.append(Fault(400, {"error": {"message": said}}))
    with Endpoint(chat_server.model(), threading.Event(), QUICK) as endpoint:
        endpoint.answer(asked(tokens=5))
        endpoint.answer(asked(tokens=6))
    names = [[name for name in request if name.startswith("max")] for request in chat_server.requests]
    assert names == [["max_tokens"], ["max_completion_tokens"], ["max_completion_tokens"]]


def test_the_first_failure_ends_the_asking(chat_server: ChatServer) -> None:
    chat_server.faults += [Fault(401, "")] * 2
    with Endpoint(chat_server.model(), threading.Event(), QUICK) as endpoint, pytest.raises(NoPermission):
        list(endpoint.answers([asked()] * 50, concurrency=2))
    assert len(chat_server.requests) < 10


def test_a_stop_ends_the_waiting(chat_server: ChatServer) -> None:
    stopping = threading.Event()
    chat_server.faults += [Fault(503, "", {"Retry-After": "100"})]
    threading.Timer(0.1, stopping.set).start()
    with Endpoint(chat_server.model(), stopping) as endpoint, pytest.raises(Interrupted):
        endpoint.answer(asked())
