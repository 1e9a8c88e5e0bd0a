"""What people may tell a rollout."""

from datetime import UTC, datetime
from typing import Any

import pytest

from dram_operator.api.rollout_status import EdgeRolloutStatus, RollbackStatus, StepState
from dram_operator.core.rollout.commands import (
    ANNOTATION,
    LONGEST_CHARACTERS,
    REMEMBERED,
    Command,
    Malformed,
    Ruling,
    Verb,
    may_replace,
    pending,
    remember,
    rule_on,
)
from tests.operator.api.rollout_statuses import A_FULL_STATUS, BAD, FIFTH, SEVENTH, SIXTH

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
APPLIED = Ruling("Applied")
WAITING = A_FULL_STATUS.model_copy(
    update={
        "rollback": None,
        "commands": (),
        "step": A_FULL_STATUS.step and A_FULL_STATUS.step.model_copy(update={"state": StepState.AWAITING_APPROVAL}),
    }
)
"""Attempt 7: SEVENTH is the candidate over SIXTH and waits for approval in step 1; FIFTH was before, BAD is in quarantine."""
DONE = WAITING.model_copy(update={"candidate": None, "step": None})


def a_command(verb: Verb, digest: str = SEVENTH, **fields: Any) -> Command:
    usual = {"id": "c7", "attempt": 7, "step": 1, "reason": "Looks good.", "who": "ada"}
    return Command.model_validate(usual | {"verb": verb, "digest": digest} | fields)


def written(command: Command) -> dict[str, str]:
    return {ANNOTATION: command.encode()}


@pytest.mark.parametrize(
    ("command", "status"),
    [
        (a_command(Verb.APPROVE), WAITING),
        (a_command(Verb.PROMOTE), WAITING),
        (a_command(Verb.ABORT), WAITING),
        (a_command(Verb.ABORT, step=None), WAITING),
        (a_command(Verb.RETRY, BAD), WAITING),
        (a_command(Verb.RETRY, BAD), DONE),
        (a_command(Verb.UNDO, SIXTH), DONE),
    ],
)
def test_a_command_that_fits_is_carried_out(command: Command, status: EdgeRolloutStatus) -> None:
    assert rule_on(command, status) == APPLIED


@pytest.mark.parametrize(
    ("command", "status", "want"),
    [
        (a_command(Verb.ABORT, attempt=6), WAITING, "it is about attempt 6, and this is attempt 7"),
        (a_command(Verb.APPROVE, step=0), WAITING, "it is about another step: step 2/5 waits for approval"),
        (a_command(Verb.APPROVE, step=None), WAITING, "it is about another step: step 2/5 waits for approval"),
        (
            a_command(Verb.APPROVE),
            WAITING.model_copy(update={"step": A_FULL_STATUS.step}),
            "no step waits for approval",
        ),
        (a_command(Verb.APPROVE), WAITING.model_copy(update={"step": None}), "no step waits for approval"),
        (a_command(Verb.APPROVE, SIXTH), WAITING, "this release is not the candidate: see `undo`"),
        (a_command(Verb.PROMOTE, SIXTH), WAITING, "this release is not the candidate: see `undo`"),
        (a_command(Verb.ABORT), DONE, "this release is not the candidate: see `undo`"),
        (a_command(Verb.RETRY, SEVENTH), WAITING, "this release is not in quarantine here"),
        (a_command(Verb.UNDO, SIXTH), WAITING, "a candidate is on its way: abort it first"),
        (a_command(Verb.UNDO, FIFTH), DONE, "this release is not stable here"),
        (a_command(Verb.UNDO, SIXTH), DONE.model_copy(update={"stable": None}), "this release is not stable here"),
        (a_command(Verb.UNDO, SIXTH), DONE.model_copy(update={"previous": None}), "there is no stable release before"),
    ],
)
def test_a_command_that_does_not_fit_is_refused(command: Command, status: EdgeRolloutStatus, want: str) -> None:
    ruling = rule_on(command, status)
    assert ruling.outcome == "Refused"
    assert ruling.message.startswith(want)


@pytest.mark.parametrize("verb", [Verb.PROMOTE, Verb.APPROVE, Verb.ABORT])
def test_what_is_being_rolled_back_is_not_promoted_any_more(verb: Verb) -> None:
    rollback = RollbackStatus(digest=SEVENTH, reason="Aborted", started_at="2026-01-01T00:00:00Z")
    ruling = rule_on(a_command(verb), WAITING.model_copy(update={"rollback": rollback}))
    assert ruling == Ruling("Refused", "this release is being rolled back already")


@pytest.mark.parametrize(
    ("old", "new", "want"),
    [
        (None, Verb.PROMOTE, True),
        (Verb.PROMOTE, Verb.ABORT, True),
        (Verb.APPROVE, Verb.PROMOTE, True),
        (Verb.ABORT, Verb.PROMOTE, False),
        (Verb.ABORT, Verb.APPROVE, False),
        (Verb.ABORT, Verb.ABORT, True),
    ],
)
def test_nothing_but_an_abort_is_written_over_an_abort(old: Verb | None, new: Verb, want: bool) -> None:
    assert may_replace(a_command(new), a_command(old) if old else None) is want


def test_anything_may_be_written_over_what_is_no_command() -> None:
    assert may_replace(a_command(Verb.PROMOTE), Malformed("x", "it is no command"))


def test_a_command_is_handled_once() -> None:
    command = a_command(Verb.APPROVE)
    assert pending(written(command), WAITING) == command
    handled = remember(WAITING, command, APPLIED, NOW, vouched=True)
    assert pending(written(command), handled) is None
    assert pending({}, WAITING) is None
    again = a_command(Verb.APPROVE, id="c8")
    assert pending(written(again), handled) == again


@pytest.mark.parametrize(("vouched", "want"), [(True, "ada"), (False, "unverified:ada")])
def test_the_record_says_who_and_whether_that_is_proven(vouched: bool, want: str) -> None:
    refused = Ruling("Refused", "Too late.")
    [record] = remember(WAITING, a_command(Verb.ABORT), refused, NOW, vouched=vouched).commands
    assert record.model_dump() == {
        "id": "c7",
        "verb": "abort",
        "who": want,
        "reason": "Looks good.",
        "outcome": "Refused",
        "message": "Too late.",
        "handledAt": "2026-01-31T12:00:00Z",
    }


def test_the_latest_commands_are_remembered() -> None:
    status = WAITING
    for number in range(REMEMBERED + 5):
        status = remember(status, a_command(Verb.ABORT, id=f"c{number}"), APPLIED, NOW, vouched=True)
    assert [record.id for record in status.commands] == [f"c{number}" for number in range(5, REMEMBERED + 5)]


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("abort!", "dram.dev/command: Invalid JSON"),
        ("[]", "dram.dev/command: "),
        (
            a_command(Verb.ABORT).encode().replace("abort", "stop"),
            "verb: Input should be 'approve', 'promote', 'abort'",
        ),
        (a_command(Verb.ABORT).encode().replace('"who":"ada"', '"who":""'), "who: "),
        ("{" + " " * LONGEST_CHARACTERS, "the command is longer than 4096 characters"),
    ],
)
def test_what_is_no_command_is_refused_once(text: str, want: str) -> None:
    found = pending({ANNOTATION: text}, WAITING)
    assert isinstance(found, Malformed)
    ruling = rule_on(found, WAITING)
    assert ruling.outcome == "Refused"
    assert ruling.message.startswith(want)
    handled = remember(WAITING, found, ruling, NOW, vouched=True)
    assert pending({ANNOTATION: text}, handled) is None
    assert (handled.commands[0].verb, handled.commands[0].who) == (None, "unverified")


def test_the_annotation_is_the_same_text_for_the_same_command() -> None:
    text = a_command(Verb.ABORT, SEVENTH).encode()
    assert text == (
        f'{{"attempt":7,"digest":"{SEVENTH}","id":"c7","reason":"Looks good.","step":1,"verb":"abort","who":"ada"}}'
    )
    assert Command.model_validate_json(text).encode() == text
