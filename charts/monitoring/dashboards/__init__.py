"""The dashboards for Grafana 10.1 and newer. `python -m charts.monitoring.dashboards FOLDER` writes them as JSON."""

import json
import sys
from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from charts.monitoring.dashboards import fleet, jobs, operator, rollouts
from charts.monitoring.dashboards.frame import Board

BOARDS: tuple[Board, ...] = (jobs.BOARD, rollouts.BOARD, fleet.BOARD, operator.BOARD)


def files() -> dict[str, str]:
    """Each dashboard's JSON by the name of its file."""
    return {
        f"{board.uid}.json": json.dumps(board.build(), cls=JSONEncoder, indent=1, sort_keys=True) + "\n"
        for board in BOARDS
    }


def main() -> None:
    """Write the dashboards into the folder given as the only argument; others in it go."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    made = files()
    for path in folder.glob("*.json"):
        if path.name not in made:
            path.unlink()
    for name, text in made.items():
        (folder / name).write_text(text)
