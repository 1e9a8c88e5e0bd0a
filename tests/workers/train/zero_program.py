"""Two ranks that train once with every ZeRO setting, each time stopped after a step and resumed.

Run by torchrun with a folder that holds a folder with `gang/task.json` for each setting.
"""

import logging
import os
import sys
from pathlib import Path

from dram_workers.errors import Interrupted
from dram_workers.train.gang import Gang, Task
from dram_workers.train.stage import distill


def main(root: Path) -> None:
    """Train in every folder below `root`."""
    logging.basicConfig(level=logging.WARNING)
    for folder in sorted(path for path in root.iterdir() if path.is_dir()):
        gang = Gang(folder / "gang")
        task = Task.model_validate_json(gang.task.read_bytes())
        try:
            distill(task, gang)
        except Interrupted:
            stopped = True
        else:
            stopped = False
        assert stopped, "the stop file was there from the start"
        again = Gang(folder / f"gang-again-{os.environ['RANK']}")
        again.folder.mkdir()
        distill(task, again)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
