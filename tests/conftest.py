"""Fixtures for every test."""

from pathlib import Path

import pytest
from hypothesis import settings

# The same examples every time, so that a change is judged by what it changes. `--hypothesis-profile=search` looks for new ones.
settings.register_profile("search")
settings.register_profile("same", derandomize=True)
settings.load_profile("same")

pytest_plugins = ["tests.cluster.fixtures"]

HERE = Path(__file__).parent
LONGEST = (
    "integration/operator/test_rollout_crashes.py",
    "integration/operator/test_crashes.py",
    "operator/local/test_runner.py",
    "workers/train/test_training.py",
    "integration/operator/test_lifecycle.py",
    "integration/operator/test_access.py",
    "integration/operator/test_releases.py",
    "integration/operator/test_rollout_duties.py",
    "integration/operator/test_rollout_outages.py",
    "agent/test_kills.py",
    "workers/train/test_zero.py",
    "workers/train/test_kills.py",
    "workers/train/test_modes.py",
)
"""Files that take minutes go first: started last, one of them would keep a core busy while the others are idle."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first."""
    rank = {HERE / name: number for number, name in enumerate(LONGEST)}
    items.sort(key=lambda item: rank.get(item.path, len(rank)))
