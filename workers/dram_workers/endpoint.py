"""A teacher behind an OpenAI-compatible endpoint: chat completions, several at a time and with patience.

The key is `OPENAI_API_KEY` of the environment. It goes into the header of requests and nowhere else: no log, no message
and no result holds it.
"""

import hashlib
import logging
import os
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self

import httpx2
from pydantic import BaseModel, Field, ValidationError

from dram_workers.data.tokenizer import Messages
from dram_workers.endpoint_model import EndpointModel
from dram_workers.errors import BadInput, Interrupted, NoPermission, StageError, Transient, WorkerReason

KEY = "OPENAI_API_KEY"
FIELD = "spec.teacher.endpoint"
TIMEOUT = httpx2.Timeout(30.0, read=600.0)
"""Seconds. An answer comes whole, so a slow model may think for minutes before its first byte."""
LONGEST_WAIT_SECONDS = 120.0
QUOTA_TEXTS = ("insufficient_quota", "billing")
"""What a 429 says that no waiting helps against."""

logging.getLogger("httpx2").setLevel(logging.WARNING)


@dataclass(frozen=True)
class Patience:
    """How often a request is tried, and how long the wait before the second try is; each further wait is twice as long."""

    tries: int = 8
    first_wait_seconds: float = 1.0


@dataclass(frozen=True)
class Asked:
    """One question to the teacher."""

    messages: Messages
    max_tokens: int
    temperature: float
    """0 takes the likeliest token."""
    seed: int


@dataclass(frozen=True)
class Reply:
    """What the teacher wrote."""

    text: str
    finished: bool
    """Whether the model ended the answer itself."""
    tokens: int
    """As the endpoint counts them; 0 where it does not say."""


class _Message(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    message: _Message
    finish_reason: str | None = None


class _Usage(BaseModel):
    completion_tokens: int = 0


class _Completion(BaseModel):
    choices: list[_Choice] = Field(min_length=1)
    usage: _Usage | None = None


def seed_of(seed: int, draw: int) -> int:
    """A seed for each answer: 31 bits, the most that every endpoint takes."""
    return int.from_bytes(hashlib.sha256(b"%d:%d" % (seed, draw)).digest()[:4]) >> 1


class Endpoint:
    """A client for one model; close it, or use it in a `with` block."""

    def __init__(self, model: EndpointModel, stopping: threading.Event, patience: Patience = Patience()) -> None:
        self._model, self._stopping, self._patience = model, stopping, patience
        self._key = os.environ.get(KEY, "")
        headers = {"Authorization": f"Bearer {self._key}"} if self._key else {}
        self._client = httpx2.Client(base_url=model.url, headers=headers, timeout=TIMEOUT)
        self._limit_name = "max_tokens"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def answers(self, questions: Sequence[Asked], concurrency: int) -> Generator[Reply]:
        """Answers in the order of the questions; the first failure ends it and asks nothing more."""
        pool = ThreadPoolExecutor(concurrency, thread_name_prefix="endpoint")
        try:
            yield from pool.map(self.answer, questions)
        finally:
            pool.shutdown(cancel_futures=True)

    def answer(self, asked: Asked) -> Reply:
        """One answer. Waits and asks again while the endpoint is busy or away; StageError when that does not help."""
        for tried in range(1, self._patience.tries + 1):
            if self._stopping.is_set():
                raise Interrupted(WorkerReason.INTERRUPTED, "told to stop while the teacher was writing")
            try:
                response = self._post(asked)
            except httpx2.TransportError as error:
                failure: StageError = self._unavailable(f"{type(error).__name__}: {error}")
                wait = None
            else:
                if response.status_code == HTTPStatus.OK:
                    return self._reply(response)
                failure, wait = self._failure(response), _retry_after(response)
            if not isinstance(failure, Transient) or tried == self._patience.tries:
                raise failure
            self._stopping.wait(wait or min(LONGEST_WAIT_SECONDS, self._patience.first_wait_seconds * 2 ** (tried - 1)))
        raise AssertionError("the last try raises")

    def _post(self, asked: Asked) -> httpx2.Response:
        body = {
            "model": self._model.model,
            "messages": asked.messages,
            "temperature": asked.temperature,
            "seed": asked.seed,
        }
        response = self._client.post("chat/completions", json={**body, self._limit_name: asked.max_tokens})
        # The newest models of the first vendor take the limit under another name only, and say so.
        if response.status_code == HTTPStatus.BAD_REQUEST and "max_completion_tokens" in response.text:
            self._limit_name = "max_completion_tokens"
            response = self._client.post("chat/completions", json={**body, self._limit_name: asked.max_tokens})
        return response

    def _reply(self, response: httpx2.Response) -> Reply:
        try:
            completion = _Completion.model_validate_json(response.content)
        except ValidationError as error:
            raise BadInput(
                WorkerReason.ENDPOINT_REFUSED,
                f"{self._model.url} answers with something that is no chat completion: {self._quoted(response.text)}",
                field=f"{FIELD}.url",
                remedy="give the base URL of an OpenAI-compatible API, which mostly ends with /v1",
            ) from error
        choice = completion.choices[0]
        tokens = completion.usage.completion_tokens if completion.usage else 0
        return Reply((choice.message.content or "").strip(), choice.finish_reason != "length", tokens)

    def _failure(self, response: httpx2.Response) -> StageError:
        status, said = response.status_code, self._quoted(_said(response))
        if status in (HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN):
            given = "the key" if self._key else "a request without a key"
            return NoPermission(
                WorkerReason.ENDPOINT_DENIED,
                f"{self._model.url} refuses {given}: {said}",
                field=f"{FIELD}.secretRef",
                remedy=f"name a Secret whose {KEY} may use the model {self._model.model} (in a local run, set {KEY})",
            )
        if status == HTTPStatus.TOO_MANY_REQUESTS and any(text in said for text in QUOTA_TEXTS):
            return NoPermission(
                WorkerReason.ENDPOINT_DENIED,
                f"the quota at {self._model.url} is used up: {said}",
                field=f"{FIELD}.secretRef",
                remedy="raise the quota with the provider, and run the job again: answers that are there are kept",
            )
        if status in (HTTPStatus.REQUEST_TIMEOUT, HTTPStatus.CONFLICT, HTTPStatus.TOO_MANY_REQUESTS) or status >= 500:
            return self._unavailable(f"status {status}: {said}")
        known_path = status != HTTPStatus.NOT_FOUND or "model" in said.lower()
        return BadInput(
            WorkerReason.ENDPOINT_REFUSED,
            f"{self._model.url} refuses to answer as {self._model.model!r} (status {status}): {said}",
            field=f"{FIELD}.{'model' if known_path else 'url'}",
            remedy="name a chat model that the endpoint serves, and prompts that fit into its context"
            if known_path
            else "give the base URL of an OpenAI-compatible API, which mostly ends with /v1",
        )

    def _unavailable(self, what: str) -> Transient:
        return Transient(
            WorkerReason.ENDPOINT_UNAVAILABLE,
            f"{self._model.url} does not answer after {self._patience.tries} tries: {self._quoted(what)}",
            field=f"{FIELD}.url",
            remedy="check the URL and that pods can reach it; where it limits the rate, lower endpoint.concurrency",
        )

    def _quoted(self, text: str) -> str:
        """The beginning of what the endpoint said, the key taken out should it repeat it."""
        hidden = text.replace(self._key, "…") if self._key else text
        return " ".join(hidden.split())[:300]


def check_endpoint(model: EndpointModel, stopping: threading.Event) -> None:
    """Ask for one token: proves address, key and model at once. Raises what `Endpoint.answer` raises."""
    with Endpoint(model, stopping, Patience(tries=3)) as endpoint:
        endpoint.answer(Asked([{"role": "user", "content": "Hello"}], max_tokens=16, temperature=0.0, seed=0))


def _said(response: httpx2.Response) -> str:
    """The message of an error, in the forms that OpenAI-compatible servers give it; else the whole text."""
    try:
        parsed: Any = response.json()
    except ValueError:
        return response.text
    error = parsed.get("error", parsed) if isinstance(parsed, dict) else None
    if not isinstance(error, dict):
        return str(error or response.text)
    return " ".join(str(error[name]) for name in ("message", "code", "detail") if error.get(name)) or response.text


def _retry_after(response: httpx2.Response) -> float | None:
    """Seconds that the endpoint asks to wait; None when it does not say, or says a date."""
    asked = response.headers.get("Retry-After", "")
    return min(LONGEST_WAIT_SECONDS, float(asked)) if asked.isdigit() else None
