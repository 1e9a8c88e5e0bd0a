"""The `dram` command. Each subcommand is imported when it is called: no image has everything that all of them need."""

from importlib import import_module

import click

_COMMANDS = {
    "run": "Run a DistillationJob on this machine.",
    "validate": "Check manifests by the CRD's schema and rules, without a cluster.",
    "demo": "Distil a small support bot, end to end, on this machine.",
    "operator": "Run the operator (what its pod runs).",
    "agent": "Run the device agent (what devices run); enroll and revoke devices.",
    "gateway": "Run the relay for the devices' telemetry.",
    "keys": "Make, rotate and recover the release repository's signing keys.",
    "release": "Sign artifacts for release.",
    "fleet": "Run a fleet of devices without models, with the real protocol.",
    "rollout": "Try an EdgeRollout: simulate it, or see which devices it would move.",
    "worker": "Run one stage (what the workers' pods run).",
}


class _Lazy(click.Group):
    """Finds a subcommand in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        command: click.Command = getattr(import_module(f"dram_operator.cli.{cmd_name}"), cmd_name)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.group(cls=_Lazy, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="dram")
def main() -> None:
    """Distil big models for small devices, gate them and hand them over."""
