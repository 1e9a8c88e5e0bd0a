"""`python3 requirements.py FOLDER EXTRA OUT`: what pyproject.toml's base and one extra need, pinned by constraints.txt.

Writes OUT/all.txt, and OUT/<name>.txt with the pinned line of every package that is built or installed on its own.
"""

import re
import sys
import tomllib
from pathlib import Path

ALONE = ("torch", "numpy", "deepspeed", "cyclonedx-bom")


def main(folder: Path, extra: str, out: Path) -> None:
    """Write the files."""
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    wanted = project["dependencies"] + project["optional-dependencies"][extra]
    pins = dict(re.findall(r"^([A-Za-z0-9_.-]+)(==\S+)", (folder / "constraints.txt").read_text(), re.MULTILINE))
    out.mkdir()
    (out / "constraints.txt").write_text("".join(f"{name}{pin}\n" for name, pin in pins.items()))
    (out / "all.txt").write_text("\n".join([*wanted, "-c constraints.txt", ""]))
    for name in ALONE:
        (out / f"{name}.txt").write_text(f"{name}{pins[name]}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], Path(sys.argv[3]))
