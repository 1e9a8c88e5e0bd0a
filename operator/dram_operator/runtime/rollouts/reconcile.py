"""The one reconcile of an EdgeRollout: what is seen → `decide` → status once, only if it differs → Events → the signed document.

It may be cut off anywhere. Status is the intent: the document is made from it alone, so the next pass signs what this one did not. Events are told once
their transition is in status, because no later pass would decide it again.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from pydantic import ValidationError

from dram_operator.adapters.resources import EDGE_ROLLOUTS, Object
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.rollout_reasons import RolloutReason
from dram_operator.core.rollout.decide import decide
from dram_operator.core.rollout.document import Delivery
from dram_operator.core.rollout.observed import NOT_LOOKED_FOR, ArtifactView, Decision, Observed, RolloutEvent
from dram_operator.errors import Conflict, NotFound, OperatorError
from dram_operator.runtime.cache import Cache, Key
from dram_operator.runtime.events import Recorder
from dram_operator.runtime.rollouts.metrics import Transitions
from dram_operator.runtime.rollouts.publish import FINALIZER, Publisher, about, finalizers
from dram_operator.runtime.rollouts.releases import NO_REPOSITORY, Releases, Signed
from dram_operator.runtime.rollouts.sight import Sight, View

log = logging.getLogger(__name__)

ARTIFACT_SECONDS = 10.0
"""How soon to ask again for an artifact that could not be asked for."""
REPOSITORY_SECONDS = 5.0
"""How often to try again what the repository did not take."""


class Artifacts(Protocol):
    """Brings spec.artifact into the repository."""

    async def view(self, obj: Object, rollout: EdgeRollout) -> ArtifactView:
        """How far it has come."""


@dataclass(frozen=True)
class Senses:
    """Where observations come from."""

    sight: Sight
    releases: Releases | None
    artifacts: Artifacts | None
    delivery: Callable[[], Delivery]
    clock: Callable[[], datetime]
    vouched: bool = False


class RolloutReconciler:
    """Reconciles EdgeRollouts; one call a key at a time."""

    def __init__(
        self, cache: Cache, senses: Senses, publisher: Publisher, recorder: Recorder, transitions: Transitions
    ) -> None:
        self._cache = cache
        self._senses = senses
        self._publisher = publisher
        self._recorder = recorder
        self._transitions = transitions

    async def __call__(self, key: Key) -> float | None:
        """One pass; returns the seconds after which to look again although nothing changed."""
        obj = self._cache.find(EDGE_ROLLOUTS, key.namespace, key.name)
        if obj is None or ("deletionTimestamp" in obj["metadata"] and FINALIZER not in finalizers(obj)):
            self._forget(key)
            return None
        try:
            rollout = EdgeRollout.from_object(obj)
        except ValidationError as error:
            self._report_unreadable(obj, error)
            return None
        signed, view = await self._signed(rollout), self._senses.sight.view(key, rollout)
        artifact = await self._artifact(obj, rollout, signed)
        decision = decide(
            self._observed(rollout, signed, view, artifact), self._senses.delivery(), self._senses.clock()
        )
        written = await self._publisher.write_status(obj, rollout.status, decision.status)
        for event in decision.events:
            self._recorder.record(written, event)
        self._transitions.count(key, rollout.status, decision)
        if decision.finished:
            await self._let_go(written)
            return None
        published = await self._publish(written, decision, signed)
        if written is not obj or published:
            # What was written may itself ask for more.
            return 0.0
        return _soonest(decision, view, signed)

    async def _signed(self, rollout: EdgeRollout) -> Signed:
        releases = self._senses.releases
        return NO_REPOSITORY if releases is None else await releases.signed(rollout.channel)

    async def _artifact(self, obj: Object, rollout: EdgeRollout, signed: Signed) -> ArtifactView:
        """Look for the artifact unless its digest is known: it is resolved once."""
        wanted, status = rollout.spec.artifact.source, rollout.status
        if rollout.metadata.deletion_timestamp or any(
            known and known.source == wanted for known in (status.candidate, status.stable)
        ):
            return NOT_LOOKED_FOR
        if signed.problem or self._senses.artifacts is None:
            # An empty status must not begin an attempt while nobody can tell what is signed.
            return ArtifactView(reason=RolloutReason.REPOSITORY_UNAVAILABLE, message=signed.problem)
        try:
            return await self._senses.artifacts.view(obj, rollout)
        except Conflict:
            raise
        except OperatorError as error:
            # Whatever holds the next artifact up, the candidate of now is still judged.
            return ArtifactView(
                reason=RolloutReason.UPLOAD_FAILED, message=str(error), look_again_seconds=ARTIFACT_SECONDS
            )

    def _observed(self, rollout: EdgeRollout, signed: Signed, view: View, artifact: ArtifactView) -> Observed:
        return Observed(
            rollout=rollout,
            artifact=artifact,
            document=signed.document,
            repository_problem=signed.problem,
            inventory=view.inventory,
            reports=view.reports,
            totals=view.totals,
            measured=view.measured,
            vouched=self._senses.vouched,
            sight_problem=view.problem,
            sight_reason=view.reason,
        )

    async def _publish(self, obj: Object, decision: Decision, signed: Signed) -> bool:
        """Sign the document; what the repository does not take is told by the next pass's conditions."""
        if decision.document is None:
            return False
        try:
            return await self._publisher.publish(obj, decision.document, signed)
        except (Conflict, NotFound):
            raise
        except OperatorError as error:
            log.warning("document not signed: %s", error, extra=about(obj))
            return signed.problem == ""

    async def _let_go(self, obj: Object) -> None:
        try:
            await self._publisher.let_go(obj)
        except NotFound:
            return

    def _forget(self, key: Key) -> None:
        self._senses.sight.forget(key)
        self._transitions.forget(key)
        if self._senses.releases is not None:
            self._senses.releases.forget(f"{key.namespace}/{key.name}")

    def _report_unreadable(self, obj: Object, error: ValidationError) -> None:
        """The schema let something pass that this operator does not know: most likely it is older than the CRD."""
        first = error.errors()[0]
        message = f"{'.'.join(map(str, first['loc']))}: {first['msg']}; operator and CRD do not fit together"
        self._recorder.record(obj, RolloutEvent("Warning", RolloutReason.SPEC_INVALID, message))
        log.error("unreadable object: %s", message, extra=about(obj))


def _soonest(decision: Decision, view: View, signed: Signed) -> float | None:
    troubled = signed.problem and signed is not NO_REPOSITORY
    due = (decision.requeue_after, view.due_in, REPOSITORY_SECONDS if troubled else None)
    return min((seconds for seconds in due if seconds is not None), default=None)
