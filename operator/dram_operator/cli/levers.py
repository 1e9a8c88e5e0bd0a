"""`approve`, `promote`, `abort`, `retry`, `undo`: one annotation, written for what was seen, and its outcome awaited."""

import asyncio
import sys
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import click
from pydantic import ValidationError

from dram_operator.adapters.resources import EDGE_ROLLOUTS
from dram_operator.api.edge_rollout import EdgeRollout
from dram_operator.api.reference import meanings
from dram_operator.api.rollout_status import CommandStatus
from dram_operator.cli.cluster import REFUSED, Cluster, Failure, on_cluster
from dram_operator.cli.names import rollout_names
from dram_operator.cli.output import Form, output_option, read_as, show_machine
from dram_operator.core.rollout.commands import ANNOTATION, Command, Verb, pending, rule_on
from dram_operator.errors import Conflict
from dram_operator.show.rollouts import command_line
from dram_operator.show.words import console, said, short

WAIT_SECONDS = 60
CONFLICTS = 10
"""Writes that may meet a status that changed in between."""


class NotNow(Failure):
    """The command does not fit what is so."""

    exit_code = REFUSED


@dataclass(frozen=True)
class Wish:
    """What the user asks for."""

    verb: Verb
    reason: str | None
    digest: str | None = None
    """Start of the digest of the release to retry."""


def lever(verb: Verb) -> click.Command:
    """The command line's command of a verb."""

    @click.argument("name", shell_complete=rollout_names)
    @click.option("-y", "--yes", is_flag=True, help="Do not ask.")
    @click.option("--reason", help="Why, for the record; at most 256 characters. Asked for where it is absent.")
    @click.option(
        "--timeout",
        "patience",
        default=WAIT_SECONDS,
        show_default=True,
        help="Seconds to wait for the outcome; 0: none.",
    )
    @output_option
    @on_cluster
    async def run(
        cluster: Cluster,
        /,
        name: str,
        yes: bool,
        reason: str | None,
        patience: int,
        form: Form | None,
        **more: str | None,
    ) -> int | None:
        return await _pull(cluster, name, Wish(verb, reason, more.get("digest")), yes, patience, form)

    if verb is Verb.RETRY:
        run = click.option("--digest", help="Start of the digest, where several releases are in quarantine.")(run)
    run.__doc__ = (
        f"{meanings(Verb)[verb]}\n\nThe command is about what you see now: if the rollout moves on before it is handled, it is "
        "refused.\n\nExit codes: 0 applied; 3 refused, and why; 4 failed otherwise; 1 you said no."
    )
    return click.command(verb.value)(run)


async def _pull(cluster: Cluster, name: str, wish: Wish, yes: bool, patience: int, form: Form | None) -> int | None:
    rollout = await _look(cluster, name)
    command = _command(wish, rollout, await cluster.user())
    _check(command, rollout)
    # What the API server would refuse is told before anybody is asked to decide.
    await _patch(cluster, rollout, command, rehearsal=True)
    if not yes:
        command = _confirmed(command, rollout, asks_reason=wish.reason is None)
    await _give(cluster, rollout, command)
    if not patience:
        click.echo(f"{command.verb}: written; `kubectl dram rollout status {name}` tells its outcome", err=True)
        return None
    record = await _outcome(cluster, name, command, patience)
    if form:
        show_machine(record.model_dump(mode="json", by_alias=True, exclude_none=True), form)
    else:
        console().print(said(command_line(record, datetime.now(UTC))), soft_wrap=True)
    return None if record.outcome == "Applied" else REFUSED


async def _look(cluster: Cluster, name: str) -> EdgeRollout:
    return read_as(EdgeRollout, await cluster.read(EDGE_ROLLOUTS, name))


def _command(wish: Wish, rollout: EdgeRollout, who: str) -> Command:
    status = rollout.status
    try:
        return Command(
            id=uuid4().hex,
            verb=wish.verb,
            attempt=status.attempt,
            step=status.step.index if status.step else None,
            digest=_digest(wish, rollout),
            reason=wish.reason or "",
            who=who,
        )
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise Failure(f"{first['loc'][0]}: {first['msg']}") from error


def _digest(wish: Wish, rollout: EdgeRollout) -> str:
    """The release that the command is about."""
    status, where = rollout.status, rollout.channel
    match wish.verb:
        case Verb.APPROVE | Verb.PROMOTE | Verb.ABORT:
            if status.candidate is None:
                raise NotNow(f"nothing is on its way in {where}: there is nothing to {wish.verb}")
            return status.candidate.release.digest
        case Verb.UNDO:
            if status.stable is None:
                raise NotNow(f"{where} has no stable release: there is nothing to undo")
            return status.stable.release.digest
        case Verb.RETRY:  # pragma: no branch -- mypy proves that no member is left
            return _quarantined(wish, rollout)


def _quarantined(wish: Wish, rollout: EdgeRollout) -> str:
    wanted = (wish.digest or "").removeprefix("sha256:")
    held = [one.digest for one in rollout.status.quarantined]
    found = [digest for digest in held if digest.startswith(wanted)]
    if len(found) == 1:
        return found[0]
    if not held:
        raise NotNow(f"no release is in quarantine in {rollout.channel}: there is nothing to retry")
    names = ", ".join(map(short, held))
    raise NotNow(f"which release? In quarantine in {rollout.channel}: {names}; name one with --digest")


def _check(command: Command, rollout: EdgeRollout) -> None:
    """What the operator would say, and whether somebody else's command is still waiting."""
    ruling = rule_on(command, rollout.status)
    if ruling.outcome == "Refused":
        raise NotNow(f"{command.verb} {rollout.channel}: {ruling.message}")
    waiting = pending(rollout.metadata.annotations, rollout.status)
    if isinstance(waiting, Command) and command.verb is not Verb.ABORT:
        raise NotNow(
            f"{rollout.channel}: {waiting.verb} by {waiting.who} is not handled yet: wait for its outcome; only abort may go first"
        )


def _confirmed(command: Command, rollout: EdgeRollout, *, asks_reason: bool) -> Command:
    status = rollout.status
    releases = (status.candidate, status.stable)
    name = next((one.name for one in releases if one and one.release.digest == command.digest), "the release")
    step = f", step {status.step.shown}" if status.step else ""
    click.echo(f"{rollout.channel}, attempt {status.attempt}{step}: {name} ({short(command.digest)})", err=True)
    click.echo(f"{command.verb}: {meanings(Verb)[command.verb]}", err=True)
    if asks_reason and sys.stdin.isatty():
        reason = click.prompt("Reason, for the record", default="", show_default=False, err=True)
        command = command.model_copy(update={"reason": reason[:256]})
    click.confirm("Go on?", abort=True, err=True)
    return command


async def _give(cluster: Cluster, rollout: EdgeRollout, command: Command) -> None:
    """Write the command. Where the object has changed since it was seen, look whether it still fits, and write again."""
    for _ in range(CONFLICTS):
        try:
            await _patch(cluster, rollout, command)
        except Conflict:
            rollout = await _look(cluster, rollout.metadata.name)
            _check(command, rollout)
        else:
            return
    raise Failure(f"{rollout.channel} changed {CONFLICTS} times while the command was being written: try again")


async def _patch(cluster: Cluster, rollout: EdgeRollout, command: Command, *, rehearsal: bool = False) -> None:
    metadata = {"resourceVersion": rollout.metadata.resource_version, "annotations": {ANNOTATION: command.encode()}}
    path = EDGE_ROLLOUTS.path(cluster.namespace, rollout.metadata.name)
    query = {"fieldManager": "kubectl-dram"} | ({"dryRun": "All"} if rehearsal else {})
    async with cluster.explaining("patch", EDGE_ROLLOUTS, rollout.metadata.name):
        try:
            await cluster.api.request("PATCH", path, query=query, body={"metadata": metadata})
        except Conflict:
            if not rehearsal:
                raise


async def _outcome(cluster: Cluster, name: str, command: Command, patience: int) -> CommandStatus:
    """What the operator made of it, from status."""
    try:
        async with asyncio.timeout(patience), aclosing(cluster.changes(EDGE_ROLLOUTS, name)) as changes:
            async for obj in changes:
                rollout = read_as(EdgeRollout, obj)
                record = next((one for one in rollout.status.commands if one.id == command.id), None)
                if record:
                    return record
                if rollout.metadata.annotations.get(ANNOTATION) != command.encode():
                    raise Failure(f"{command.verb}: somebody wrote another command before this one was handled")
    except TimeoutError as error:
        raise Failure(
            f"{command.verb}: written, and not handled within {patience} s: does the operator run? `kubectl dram doctor`"
        ) from error
    raise Failure(f"{command.verb}: written; its outcome is not known")
