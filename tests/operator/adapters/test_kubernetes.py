"""What an HTTP answer of the API server means for the next attempt."""

import json

import pytest

from dram_operator.adapters.kubernetes import failure
from dram_operator.adapters.resources import DISTILLATION_JOBS, PODS, TOKEN_REVIEWS
from dram_operator.errors import Conflict, NameTaken, NotFound, OperatorError, Refused, Transient, Unavailable


@pytest.mark.parametrize(
    ("method", "status", "reason", "want"),
    [
        ("GET", 404, "NotFound", NotFound),
        ("POST", 409, "AlreadyExists", NameTaken),
        ("PATCH", 409, "Conflict", Conflict),
        ("DELETE", 409, "Conflict", Conflict),
        ("POST", 403, "Forbidden", Refused),
        ("POST", 422, "Invalid", Refused),
        ("GET", 401, "Unauthorized", Unavailable),
        ("GET", 429, "TooManyRequests", Unavailable),
        ("GET", 500, "InternalError", Unavailable),
        ("GET", 504, "Timeout", Unavailable),
    ],
)
def test_an_answer_says_whether_to_try_again(method: str, status: int, reason: str, want: type[OperatorError]) -> None:
    error = failure(method, status, json.dumps({"message": "the server's words", "reason": reason}).encode())
    assert type(error) is want
    assert "the server's words" in str(error)
    assert isinstance(error, Transient) == (status not in (403, 404, 422))


def test_the_server_may_say_when() -> None:
    error = failure("GET", 429, b"{}", "7")
    assert isinstance(error, Unavailable)
    assert error.retry_after == 7.0


def test_an_answer_that_is_no_status_object_is_quoted() -> None:
    assert "<html>bad gateway" in str(failure("GET", 502, b"<html>bad gateway"))
    assert str(failure("GET", 502, b"")) == "HTTP 502"


def test_paths_are_those_of_the_api() -> None:
    assert PODS.path() == "/api/v1/pods"
    assert PODS.path("ns", "p") == "/api/v1/namespaces/ns/pods/p"
    status = DISTILLATION_JOBS.path("ns", "bot", "status")
    assert status == "/apis/dram.dev/v1alpha1/namespaces/ns/distillationjobs/bot/status"
    assert TOKEN_REVIEWS.path() == "/apis/authentication.k8s.io/v1/tokenreviews"
