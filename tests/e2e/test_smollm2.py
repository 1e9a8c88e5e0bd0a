"""A real model on a whole cluster."""

import pytest

from tests.e2e.story import Story


@pytest.mark.long
def test_smollm2_becomes_two_variants(smollm2_begun: Story) -> None:
    status = smollm2_begun.wait_succeeded(patience_seconds=1000)

    assert {variant["name"] for variant in status["variants"]} == {"gguf-q8-0", "gguf-q4-k-m"}
    sizes = {variant["name"]: variant["sizeBytes"] for variant in status["variants"]}
    assert 0 < sizes["gguf-q4-k-m"] < sizes["gguf-q8-0"]
    assert all(row["verdict"] in {"Pass", "Warn"} for row in status["gates"])
