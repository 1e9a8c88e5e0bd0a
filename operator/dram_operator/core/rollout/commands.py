"""What people may tell a rollout: one annotation, each command once, and abort before all.

A command names what it is about (attempt, step, digest). One that comes late, after the rollout has moved on, is refused instead of hitting something else.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from hashlib import sha256
from typing import Annotated, Literal

from pydantic import Field, ValidationError

from dram_operator.api.rollout_spec import Sha256
from dram_operator.api.rollout_status import CommandStatus, EdgeRolloutStatus, StepState
from dram_operator.core.times import stamp
from dram_workers.model import Model

ANNOTATION = "dram.dev/command"
REMEMBERED = 10
LONGEST_CHARACTERS = 4096


class Verb(StrEnum):
    """What can be asked for; also the verbs of the right to ask, on `edgerollouts`."""

    APPROVE = "approve"
    """Let a step that waits for a person go on."""
    PROMOTE = "promote"
    """Make the candidate stable at once, without the steps that are left."""
    ABORT = "abort"
    """Send the candidate back, and keep it from coming again by itself."""
    RETRY = "retry"
    """Release the artifact from quarantine, and try it again."""
    UNDO = "undo"
    """Go back to the stable release before this one."""


class Command(Model):
    """A command as the annotation holds it."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    """Made by the writer, never used twice."""
    verb: Verb
    attempt: Annotated[int, Field(ge=0)]
    """The attempt that the writer saw."""
    step: Annotated[int, Field(ge=0)] | None = None
    """The step that the writer saw, from 0; approve needs it."""
    digest: Sha256
    """The release it is about: the candidate; for retry the one in quarantine, for undo the stable one."""
    reason: Annotated[str, Field(max_length=256)] = ""
    """Why, in the writer's words."""
    who: Annotated[str, Field(min_length=1, max_length=96)]
    """The writer."""

    def encode(self) -> str:
        """The annotation's text; equal for equal commands."""
        return json.dumps(self.model_dump(mode="json"), sort_keys=True, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True)
class Malformed:
    """An annotation that is no command."""

    id: str
    """Made from its text, so that it is refused once."""
    message: str


@dataclass(frozen=True)
class Ruling:
    """Whether a command may be carried out."""

    outcome: Literal["Applied", "Refused"]
    message: str = ""
    """Why it is refused, and what to do instead."""


def pending(annotations: Mapping[str, str], status: EdgeRolloutStatus) -> Command | Malformed | None:
    """The command that was not handled yet, if any."""
    text = annotations.get(ANNOTATION)
    command = None if text is None else _read(text)
    return None if command is None or command.id in {known.id for known in status.commands} else command


def may_replace(new: Command, old: Command | Malformed | None) -> bool:
    """Whether a writer may put a command over one that is not handled yet: over an abort only another abort."""
    return new.verb is Verb.ABORT or not isinstance(old, Command) or old.verb is not Verb.ABORT


def rule_on(command: Command | Malformed, status: EdgeRolloutStatus) -> Ruling:
    """Whether the command still fits what it was about."""
    if isinstance(command, Malformed):
        return Ruling("Refused", command.message)
    if command.attempt != status.attempt:
        return Ruling("Refused", f"it is about attempt {command.attempt}, and this is attempt {status.attempt}")
    match command.verb:
        case Verb.APPROVE:
            return _approve(command, status)
        case Verb.PROMOTE | Verb.ABORT:
            return _on_candidate(command, status)
        case Verb.RETRY:
            held = any(one.digest == command.digest for one in status.quarantined)
            return Ruling("Applied") if held else Ruling("Refused", "this release is not in quarantine here")
        case Verb.UNDO:  # pragma: no branch -- mypy proves that no member is left
            return _undo(command, status)


def remember(
    status: EdgeRolloutStatus, command: Command | Malformed, ruling: Ruling, now: datetime, *, vouched: bool
) -> EdgeRolloutStatus:
    """The status with the command on record. `vouched`: the API server proved that the writer is who it says."""
    if isinstance(command, Malformed):
        told = {"verb": None, "who": "unverified"}
    else:
        who = command.who if vouched else f"unverified:{command.who}"
        told = {"verb": command.verb.value, "who": who, "reason": command.reason}
    record = CommandStatus.model_validate(
        told | {"id": command.id, "outcome": ruling.outcome, "message": ruling.message, "handled_at": stamp(now)}
    )
    return status.model_copy(update={"commands": (*status.commands, record)[-REMEMBERED:]})


def _read(text: str) -> Command | Malformed:
    if len(text) > LONGEST_CHARACTERS:
        return _malformed(text, f"the command is longer than {LONGEST_CHARACTERS} characters")
    try:
        return Command.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(map(str, first["loc"])) or ANNOTATION
        return _malformed(text, f"{place}: {first['msg']}: write commands with `kubectl dram rollout`")


def _malformed(text: str, message: str) -> Malformed:
    return Malformed(f"sha256-{sha256(text.encode()).hexdigest()[:32]}", message)


def _approve(command: Command, status: EdgeRolloutStatus) -> Ruling:
    refused = _on_candidate(command, status)
    if refused.outcome == "Refused":
        return refused
    step = status.step
    if step is None or step.state is not StepState.AWAITING_APPROVAL:
        return Ruling("Refused", "no step waits for approval")
    if command.step != step.index:
        return Ruling("Refused", f"it is about another step: step {step.shown} waits for approval")
    return Ruling("Applied")


def _on_candidate(command: Command, status: EdgeRolloutStatus) -> Ruling:
    candidate, rollback = status.candidate, status.rollback
    if candidate is None or candidate.release.digest != command.digest:
        return Ruling("Refused", "this release is not the candidate: see `undo` for one that is stable already")
    if rollback and rollback.digest == command.digest and rollback.completed_at is None:
        return Ruling("Refused", "this release is being rolled back already")
    return Ruling("Applied")


def _undo(command: Command, status: EdgeRolloutStatus) -> Ruling:
    if status.candidate is not None:
        return Ruling("Refused", "a candidate is on its way: abort it first")
    if status.stable is None or status.stable.release.digest != command.digest:
        return Ruling("Refused", "this release is not stable here")
    if status.previous is None:
        return Ruling("Refused", "there is no stable release before this one")
    return Ruling("Applied")
