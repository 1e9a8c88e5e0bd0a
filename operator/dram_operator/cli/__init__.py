"""The `dram` command, and `kubectl dram`. Each subcommand is imported when it is called: no image has everything that all of them need."""

import errno
import sys
from importlib import import_module
from io import TextIOWrapper
from typing import Any

import click

_COMMANDS = {
    "run": ("run", "Run a DistillationJob on this machine."),
    "validate": ("validate", "Check manifests by the CRD's schema and rules, without a cluster."),
    "demo": ("demo", "Distil a small support bot, end to end, on this machine."),
    "get": ("jobs", "List the cluster's DistillationJobs."),
    "status": ("jobs", "Tell the story of a DistillationJob."),
    "watch": ("jobs", "Follow a DistillationJob until it has ended."),
    "report": ("jobs", "Say where the report of a DistillationJob lies, save it, or open it."),
    "rollout": ("rollout", "Look at EdgeRollouts; approve, promote, abort, retry and undo them; rehearse one."),
    "doctor": ("doctor", "Check an installation, and say what to do where something is wrong."),
    "selftest": ("selftest", "Run a tiny job through every stage of an installation (what `helm test` runs)."),
    "tryout": ("tryout", "Prepare the chart's servers for trying out (what the operator's pod runs first)."),
    "operator": ("operator", "Run the operator (what its pod runs)."),
    "agent": ("agent", "Run the device agent (what devices run); enroll and revoke devices."),
    "gateway": ("gateway", "Run the relay for the devices' telemetry."),
    "keys": ("keys", "Make, rotate and recover the release repository's signing keys."),
    "release": ("release", "Sign artifacts for release."),
    "fleet": ("fleet", "Run a fleet of devices without models, with the real protocol."),
    "worker": ("worker", "Run one stage (what the workers' pods run)."),
    "completion": ("completion", "Print the completion script of a shell."),
}
"""Subcommands: the module, and what it does."""
EXTRAS = {
    "torch": "worker",
    "xllamacpp": "agent",
    "kopf": "operator",
    "numpy": "local",
    "matplotlib": "local",
    "jsonschema": "local",
    "cel": "local",
}
"""Which extra of the distribution brings a package; the others come with `kubectl`."""
FAILED = 4
ADDRESSES = (errno.EADDRINUSE, errno.EADDRNOTAVAIL)
"""Errors of an address to listen at, which the user named as well."""


class _Lazy(click.Group):
    """Finds a subcommand in its module."""

    def main(self, *args: Any, **kwargs: Any) -> Any:
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, TextIOWrapper):
                # As kubectl does: marks and other people's words are in no smaller alphabet, and programs expect UTF-8.
                stream.reconfigure(encoding="utf-8")
        return super().main(*args, **kwargs)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = import_module(f"dram_operator.cli.{_COMMANDS[cmd_name][0]}")
        command: click.Command = getattr(module, cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> object:
        try:
            return super().invoke(ctx)
        except ModuleNotFoundError as error:
            name = (error.name or "").partition(".")[0]
            click.echo(f"{name} is not installed: pip install 'dram[{EXTRAS.get(name, 'kubectl')}]'", err=True)
            raise SystemExit(FAILED) from error
        except OSError as error:
            if error.filename is None and error.errno not in ADDRESSES:
                raise
            click.echo(": ".join(str(part) for part in (error.filename, error.strerror) if part), err=True)
            raise SystemExit(FAILED) from error

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, what) for name, (_, what) in _COMMANDS.items()])


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dram")
def main() -> None:
    """Distil big models for small devices, gate them and hand them over."""


def kubectl() -> None:
    """`kubectl-dram`, which kubectl calls for `kubectl dram`."""
    main(prog_name="kubectl dram")
