"""Kubernetes quantities."""

import pytest

from dram_operator.api.quantity import quantity

GIB = 1024**3


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("8Gi", 8 * GIB),
        ("1.5Gi", 1.5 * GIB),
        ("500M", 5e8),
        ("128974848", 128974848),
        ("1e3", 1000),
        ("500m", 0.5),
        ("-.5", -0.5),
    ],
)
def test_a_quantity_is_a_number(text: str, want: float) -> None:
    assert quantity(text) == want


@pytest.mark.parametrize("text", ["8 GB", "", "1.2.3", ".", "5%", "--1"])
def test_what_is_no_quantity_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="no quantity"):
        quantity(text)
