"""`dram agent`: what runs on a device, and its identity."""

import logging
import time
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import ParamSpec

import click

BAD_SETTINGS = 2
DAY_SECONDS = 86_400

P = ParamSpec("P")


def _says_what_is_wrong(command: Callable[P, None]) -> Callable[P, None]:
    """Turn wrong settings into one line and exit code 2."""

    @wraps(command)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        from dram_agent.settings import SettingsInvalid

        try:
            command(*args, **kwargs)
        except SettingsInvalid as error:
            click.echo(str(error), err=True)
            raise SystemExit(BAD_SETTINGS) from error

    return run


@click.group(invoke_without_command=True)
@click.option(
    "--config",
    type=click.Path(path_type=Path, dir_okay=False),
    default=Path("/etc/dram/agent.yaml"),
    show_default=True,
    help="The device's settings.",
)
@click.pass_context
@_says_what_is_wrong
def agent(context: click.Context, config: Path) -> None:
    """Follow a channel: fetch, verify, test, serve and report models on this device, until SIGTERM.

    The subcommands are for the owner of the devices, not for the device. Exit codes: 0 told to end, or done; 2 the
    settings are wrong.
    """
    if context.invoked_subcommand is not None:
        return
    from dram_agent.main import run_agent
    from dram_agent.settings import read_settings

    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    raise SystemExit(run_agent(read_settings(config)))


_path = click.Path(path_type=Path, dir_okay=False)
_list_option = click.option(
    "--list", "listed", required=True, type=_path, help="The revocation list that the gateway reads."
)
_why_option = click.option("--why", default="", help="A word for the record.")


@agent.command("new-key")
@click.argument("key", type=_path)
@_says_what_is_wrong
def new_key(key: Path) -> None:
    """Make KEY to sign tokens with, and KEY.pub for the gateway."""
    from dram_agent import identity

    identity.new_key(key)
    click.echo(f"{key}: keep it where devices are enrolled; {key}.pub goes to the gateway")


@agent.command()
@click.option("--channel", required=True, metavar="NAMESPACE/NAME", help="The channel that the device follows.")
@click.option("--key", required=True, type=_path, help="The key that signs tokens.")
@click.option(
    "--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder for device-id and token."
)
@click.option("--class", "device_class", help="Class of the device, as releases name it.")
@click.option("--device", help="An id that exists, for a new token; absent, a random one is made.")
@click.option("--days", default=365, show_default=True, type=click.IntRange(1, 3650), help="Until the token expires.")
@_says_what_is_wrong
def enroll(channel: str, key: Path, out: Path, device_class: str | None, device: str | None, days: int) -> None:
    """Give a device its identity: device-id and token, for /etc/dram on the device, readable by nobody else."""
    from pydantic import ValidationError

    from dram_agent import identity
    from dram_agent.settings import SettingsInvalid

    now = int(time.time())
    try:
        claims = identity.Claims(
            device=device or identity.new_id(),
            namespace=channel.partition("/")[0],
            channel=channel,
            device_class=device_class,
            issued_at=now,
            expires_at=now + days * DAY_SECONDS,
        )
    except ValidationError as error:
        first = error.errors()[0]
        raise SettingsInvalid(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from error
    token = identity.issue(identity.load_key(key), claims)
    out.mkdir(parents=True, exist_ok=True)
    identity.write_private(out / "token", f"{token}\n".encode())
    if device is None:
        identity.write_private(out / "device-id", f"{claims.device}\n".encode())
    click.echo(claims.device)


@agent.command()
@click.argument("device")
@_list_option
@_why_option
@_says_what_is_wrong
def revoke(device: str, listed: Path, why: str) -> None:
    """Take back every token that DEVICE has now: it was lost, or copied. A token made later counts."""
    _add(device, listed, why, before=int(time.time()))


@agent.command()
@click.argument("device")
@_list_option
@_why_option
@_says_what_is_wrong
def decommission(device: str, listed: Path, why: str) -> None:
    """Take DEVICE out of service for good, whatever token it will have."""
    _add(device, listed, why, before=None)


def _add(device: str, listed: Path, why: str, before: int | None) -> None:
    from pydantic import ValidationError

    from dram_agent.gateway.revocations import Revocation, append
    from dram_agent.settings import SettingsInvalid

    try:
        line = Revocation(device=device, before=before, at=int(time.time()), why=why)
    except ValidationError as error:
        raise SettingsInvalid(f"{device} is no device id: 32 hex digits") from error
    append(listed, line)
    click.echo(f"{listed}: {device}")
