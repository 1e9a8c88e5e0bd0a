"""Who posts progress: a pod, by its projected token, as the API server's TokenReview tells."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.adapters.resources import TOKEN_REVIEWS, Object
from dram_operator.core.jobs import PROGRESS_AUDIENCE

TRUSTED_SECONDS = 60.0
"""How long a review holds: a pod that posts every 5 s costs one review a minute."""
DISTRUSTED_SECONDS = 10.0
REMEMBERED = 10_000
EXTRA = "authentication.kubernetes.io/"


@dataclass(frozen=True)
class Caller:
    """The pod that a token was issued to."""

    namespace: str
    pod: str
    uid: str


class Tokens:
    """Reviews tokens; remembers the answers by the tokens' digests."""

    def __init__(self, api: Kubernetes, clock: Callable[[], float]) -> None:
        self._api = api
        self._clock = clock
        self._known: OrderedDict[str, tuple[Caller | None, float]] = OrderedDict()

    async def caller(self, token: str) -> Caller | None:
        """The pod behind a token for our audience; None when it is no such token."""
        digest = hashlib.sha256(token.encode()).hexdigest()
        known = self._known.get(digest)
        if known and known[1] > self._clock():
            return known[0]
        body = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token, "audiences": [PROGRESS_AUDIENCE]},
        }
        review = await self._api.create(TOKEN_REVIEWS, None, body)
        caller = read_review(review)
        self._remember(digest, caller)
        return caller

    def _remember(self, digest: str, caller: Caller | None) -> None:
        self._known[digest] = (caller, self._clock() + (TRUSTED_SECONDS if caller else DISTRUSTED_SECONDS))
        self._known.move_to_end(digest)
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)


def read_review(review: Object) -> Caller | None:
    """The pod that a TokenReview names; None when the token is not valid for our audience or not a pod's."""
    status = review.get("status", {})
    if not status.get("authenticated") or PROGRESS_AUDIENCE not in status.get("audiences", ()):
        return None
    user = status.get("user", {})
    parts = user.get("username", "").split(":")
    extra = user.get("extra", {})
    names, uids = extra.get(f"{EXTRA}pod-name", ()), extra.get(f"{EXTRA}pod-uid", ())
    if parts[:2] != ["system", "serviceaccount"] or len(parts) != 4 or not names or not uids:
        return None
    return Caller(parts[2], names[0], uids[0])
