"""Where a benchmark ran."""

from pathlib import Path

import pytest

from dram_workers.bench.target import EnergyCounter, processor


def test_the_processor_has_a_name() -> None:
    name, flags = processor()
    assert name
    assert set(flags.split()) <= set(Path("/proc/cpuinfo").read_text().split())


@pytest.mark.parametrize(
    ("before", "now", "want"), [(1_000_000, 3_500_000, 2.5), (9_000_000, 500_000, 1.5), (None, 5, None)]
)
def test_energy_is_a_counter_that_wraps(tmp_path: Path, before: int | None, now: int, want: float | None) -> None:
    (tmp_path / "energy_uj").write_text(f"{now}\n")
    (tmp_path / "max_energy_range_uj").write_text("10000000\n")
    assert EnergyCounter(tmp_path).joules_since(before) == want


def test_without_a_counter_there_is_no_energy(tmp_path: Path) -> None:
    counter = EnergyCounter(tmp_path / "none")
    assert counter.read() is None
    assert counter.joules_since(5) is None
