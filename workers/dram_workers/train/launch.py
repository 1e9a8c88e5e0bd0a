"""torchrun with a memory: `python -m dram_workers.train.launch FOLDER TORCHRUN-ARGUMENTS…`.

torchrun turns every rank's end into exit code 1; this writes down which ranks failed, and how.
"""

import json
import sys
from pathlib import Path

from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.run import parse_args, run

from dram_workers.train.gang import Death, Gang


def main(folder: Path, arguments: list[str]) -> int:
    """Run torchrun; returns 0 or 1."""
    try:
        asked = parse_args([*arguments, "-m", "dram_workers.train.rank", str(folder)])  # type: ignore[no-untyped-call]
        run(asked)  # type: ignore[no-untyped-call]
    except ChildFailedError as error:
        deaths = [Death(rank=rank, exit_code=failure.exitcode) for rank, failure in error.failures.items()]
        Gang(folder).deaths.write_text(json.dumps([death.model_dump(mode="json") for death in deaths]))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
