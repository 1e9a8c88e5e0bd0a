"""`dram operator`: the control plane's process."""

import click


@click.command()
def operator() -> None:
    """Run the operator until SIGTERM; settings come from the environment (`DRAM_…`)."""
    from dram_operator.app import main

    raise SystemExit(main())
