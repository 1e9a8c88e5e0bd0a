"""The levers on a rollout: every verb, its rights, its refusals and its races, at a real API server with the chart's policy."""

import json
import re

import click
import pytest

from dram_operator.api.rollout_status import EdgeRolloutStatus
from dram_operator.core.rollout.commands import ANNOTATION, Command, Verb
from tests.cluster.api import Api
from tests.integration.kubectl.seat import (
    NAMESPACE,
    RESTING,
    WAITING,
    Clerk,
    Seat,
    command_of,
    place_rollout,
    set_status,
)

BEFORE: dict[Verb, EdgeRolloutStatus] = {
    Verb.APPROVE: WAITING,
    Verb.PROMOTE: WAITING,
    Verb.ABORT: WAITING,
    Verb.RETRY: RESTING,
    Verb.UNDO: RESTING,
}


@pytest.mark.parametrize("verb", Verb)
def test_every_verb_is_given_for_what_was_seen_and_its_outcome_told(
    api: Api, officer: Seat, clerk: Clerk, name: str, verb: Verb
) -> None:
    place_rollout(api, name, BEFORE[verb])

    result = officer.dram("rollout", verb, name, "--yes", "--reason", 'quiet "night" ü')

    assert result.exit_code == 0, result.output
    assert re.fullmatch(rf'✓ {verb} by olga, \d+ s ago “quiet "night" ü”\n', result.output)
    (record,) = api.get("EdgeRollout", name, NAMESPACE)["status"]["commands"]
    assert (record["verb"], record["who"], record["reason"], record["outcome"]) == (
        verb.value, "olga", 'quiet "night" ü', "Applied"
    )  # fmt: skip
    given = json.loads(command_of(api, name) or "{}")
    assert (given["attempt"], given["step"]) == (7, 1 if BEFORE[verb] is WAITING else None)


def test_the_record_comes_as_json(api: Api, officer: Seat, clerk: Clerk, name: str) -> None:
    place_rollout(api, name, WAITING)
    record = json.loads(officer.dram("rollout", "abort", name, "--yes", "-o", "json").stdout)
    assert (record["verb"], record["outcome"], record["who"]) == ("abort", "Applied", "olga")


def test_a_person_is_asked_and_may_say_no(api: Api, officer: Seat, clerk: Clerk, name: str) -> None:
    place_rollout(api, name, WAITING)

    no = officer.dram("rollout", "abort", name, typed="n\n")
    assert (no.exit_code, command_of(api, name)) == (1, None)
    assert f"{NAMESPACE}/{name}, attempt 7, step 2/5: support-bot-v7/gguf-q4-k-m (070707070707)" in no.output
    assert "abort: Send the candidate back, and keep it from coming again by itself." in no.output

    yes = officer.dram("rollout", "abort", name, typed="y\n")
    assert (yes.exit_code, "✓ abort by olga" in yes.output) == (0, True)


@pytest.mark.parametrize("verb", Verb)
def test_who_may_only_look_can_command_nothing(api: Api, viewer: Seat, name: str, verb: Verb) -> None:
    place_rollout(api, name, BEFORE[verb])
    assert viewer.dram("rollout", "status", name).exit_code == 0

    result = viewer.dram("rollout", verb, name, "--yes")

    assert result.exit_code == 4
    assert f"you may not patch edgerollouts in namespace {NAMESPACE}" in result.output
    assert 'User "vera" cannot patch resource "edgerollouts"' in result.output
    assert f"kubectl auth can-i patch edgerollouts.dram.dev -n {NAMESPACE}" in result.output
    assert command_of(api, name) is None


@pytest.mark.parametrize("verb", [verb for verb in Verb if verb is not Verb.ABORT])
def test_who_may_edit_can_abort_and_is_told_which_verb_is_missing_before_being_asked(
    api: Api, editor: Seat, name: str, verb: Verb
) -> None:
    place_rollout(api, name, BEFORE[verb])

    result = editor.dram("rollout", verb, name, typed="y\n")

    assert result.exit_code == 4
    assert f"emil may not {verb} rollouts: the verb {verb} on edgerollouts is missing" in result.output
    assert "Go on?" not in result.output
    assert command_of(api, name) is None


def test_who_may_edit_can_abort(api: Api, editor: Seat, clerk: Clerk, name: str) -> None:
    place_rollout(api, name, WAITING)
    assert editor.dram("rollout", "abort", name, "--yes").exit_code == 0


@pytest.mark.parametrize(
    ("verb", "status", "want"),
    [
        (Verb.APPROVE, RESTING, "nothing is on its way"),
        (Verb.PROMOTE, RESTING, "nothing is on its way"),
        (Verb.ABORT, RESTING, "there is nothing to abort"),
        (Verb.APPROVE, WAITING.model_copy(update={"step": None}), "no step waits for approval"),
        (Verb.RETRY, RESTING.model_copy(update={"quarantined": ()}), "no release is in quarantine"),
        (Verb.UNDO, RESTING.model_copy(update={"previous": None}), "there is no stable release before this one"),
        (Verb.UNDO, RESTING.model_copy(update={"stable": None}), "has no stable release"),
        (Verb.UNDO, WAITING, "a candidate is on its way: abort it first"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_reason_and_nothing_is_written(
    api: Api, officer: Seat, name: str, verb: Verb, status: EdgeRolloutStatus, want: str
) -> None:
    place_rollout(api, name, status)
    result = officer.dram("rollout", verb, name, "--yes")
    assert (result.exit_code, command_of(api, name)) == (3, None)
    assert want in result.output


def test_of_several_releases_in_quarantine_one_is_named(api: Api, officer: Seat, clerk: Clerk, name: str) -> None:
    (held,) = RESTING.quarantined
    other = held.model_copy(update={"digest": "ab" * 32})
    place_rollout(api, name, RESTING.model_copy(update={"quarantined": (held, other)}))

    which = officer.dram("rollout", "retry", name, "--yes")
    assert (which.exit_code, "bdbdbdbdbdbd, abababababab; name one with --digest" in which.output) == (3, True)

    assert officer.dram("rollout", "retry", name, "--yes", "--digest", "abab").exit_code == 0
    assert json.loads(command_of(api, name) or "{}")["digest"] == "ab" * 32


def test_a_change_in_between_that_leaves_the_command_right_is_no_obstacle(
    api: Api, officer: Seat, clerk: Clerk, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_rollout(api, name, WAITING)
    # While the person thinks, the operator writes what it sees.
    monkeypatch.setattr(click, "confirm", lambda *_, **__: set_status(api, "EdgeRollout", name, {"gate": "Waiting"}))
    result = officer.dram("rollout", "approve", name)
    assert (result.exit_code, "✓ approve by olga" in result.output) == (0, True)


@pytest.mark.parametrize(
    ("change", "want"),
    [
        ({"attempt": 8}, "it is about attempt 7, and this is attempt 8"),
        ({"step": {"index": 2}}, "it is about another step"),
        ({"step": {"state": "Passed"}}, "no step waits for approval"),
    ],
)
def test_a_rollout_that_moves_on_while_a_person_thinks_is_left_alone(
    api: Api, officer: Seat, name: str, monkeypatch: pytest.MonkeyPatch, change: dict[str, object], want: str
) -> None:
    place_rollout(api, name, WAITING)
    monkeypatch.setattr(click, "confirm", lambda *_, **__: set_status(api, "EdgeRollout", name, change))
    result = officer.dram("rollout", "approve", name)
    assert (result.exit_code, command_of(api, name)) == (3, None)
    assert want in result.output


def test_what_the_operator_refuses_is_told(api: Api, officer: Seat, clerk: Clerk, name: str) -> None:
    place_rollout(api, name, WAITING)
    clerk.before = lambda status: status.model_copy(update={"attempt": 8})
    result = officer.dram("rollout", "approve", name, "--yes")
    assert result.exit_code == 3
    assert result.output.startswith("✗ approve by olga, ")
    assert "ago: Refused: it is about attempt 7, and this is attempt 8" in result.output


def test_a_command_that_waits_is_not_overwritten_but_by_an_abort(api: Api, officer: Seat, name: str) -> None:
    place_rollout(api, name, WAITING)
    assert officer.dram("rollout", "promote", name, "--yes", "--timeout", "0").exit_code == 0
    waiting = command_of(api, name)

    refused = officer.dram("rollout", "approve", name, "--yes", "--timeout", "0")
    assert (refused.exit_code, command_of(api, name)) == (3, waiting)
    assert "promote by olga is not handled yet" in refused.output

    assert officer.dram("rollout", "abort", name, "--yes", "--timeout", "0").exit_code == 0
    assert json.loads(command_of(api, name) or "{}")["verb"] == "abort"


def test_without_an_operator_the_command_says_so(api: Api, officer: Seat, name: str) -> None:
    place_rollout(api, name, WAITING)
    result = officer.dram("rollout", "approve", name, "--yes", "--timeout", "1")
    assert result.exit_code == 4
    assert "written, and not handled within 1 s: does the operator run? `kubectl dram doctor`" in result.output


def test_a_command_that_somebody_replaced_is_not_waited_for(
    api: Api, officer: Seat, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    place_rollout(api, name, WAITING)
    abort = Command(id="c1", verb=Verb.ABORT, attempt=7, digest="07" * 32, who="admin")
    from dram_operator.cli import levers

    written = levers._outcome

    def replaced(*arguments: object) -> object:
        api.patch("EdgeRollout", name, NAMESPACE, {"metadata": {"annotations": {ANNOTATION: abort.encode()}}})
        return written(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(levers, "_outcome", replaced)
    result = officer.dram("rollout", "approve", name, "--yes")
    assert result.exit_code == 4
    assert "somebody wrote another command before this one was handled" in result.output


def test_a_reason_that_is_too_long_is_said_to_be(api: Api, officer: Seat, name: str) -> None:
    place_rollout(api, name, WAITING)
    result = officer.dram("rollout", "abort", name, "--yes", "--reason", "x" * 257)
    assert (result.exit_code, command_of(api, name)) == (4, None)
    assert "reason: String should have at most 256 characters" in result.output
