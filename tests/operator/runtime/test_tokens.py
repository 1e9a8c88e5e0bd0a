"""What a TokenReview proves."""

from typing import Any

import pytest

from dram_operator.runtime.tokens import Caller, read_review

POD = {"authentication.kubernetes.io/pod-name": ["bot-train-1-x"], "authentication.kubernetes.io/pod-uid": ["u1"]}
GOOD: dict[str, Any] = {
    "authenticated": True,
    "audiences": ["dram-progress"],
    "user": {"username": "system:serviceaccount:ns:default", "extra": POD},
}


def test_a_pods_token_names_its_pod() -> None:
    assert read_review({"status": GOOD}) == Caller("ns", "bot-train-1-x", "u1")


@pytest.mark.parametrize(
    "status",
    [
        {},
        GOOD | {"authenticated": False},
        GOOD | {"audiences": ["https://kubernetes.default.svc"]},
        GOOD | {"audiences": []},
        GOOD | {"user": {"username": "system:serviceaccount:ns:default"}},
        GOOD | {"user": {"username": "system:serviceaccount:ns", "extra": POD}},
        GOOD | {"user": {"username": "somebody", "extra": POD}},
    ],
    ids=["nothing", "not authenticated", "another audience", "no audience", "no pod", "half a name", "a person"],
)
def test_anything_less_names_nobody(status: dict[str, Any]) -> None:
    assert read_review({"status": status}) is None
