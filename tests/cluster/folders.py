"""Where the fixtures keep what outlives a run (binaries, images) and what must not (state of running parts)."""

import os
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]


def cache_folder(*parts: str) -> Path:
    """A folder below the user's cache, made when absent. Short, because Unix socket paths end at 107 characters."""
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    folder = root.joinpath("dram", *parts)
    folder.mkdir(parents=True, exist_ok=True)
    return folder
