"""`dram worker`: one stage's process."""

import click


@click.command(context_settings={"ignore_unknown_options": True}, add_help_option=False)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def worker(arguments: tuple[str, ...]) -> None:
    """Run the stage STAGE of the config in FILE: `dram worker STAGE --config FILE`."""
    from dram_workers.entry import main

    raise SystemExit(main(list(arguments)))
