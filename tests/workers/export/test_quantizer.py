"""Every tensor of every type has the type and the bytes that llama.cpp's own quantizer gave it.

The digests were recorded by tests/tools/compare_quantizer.py, see docs/design/quantizer-comparison.md.
"""

import json
from pathlib import Path

import pytest

from dram_workers.stages import GgufType
from tests.tools.compare_quantizer import ours, tensors, whole_digest
from tests.tools.quantizer_models import MADE_MODELS, write_made_model

DIGESTS = json.loads((Path(__file__).parent / "quantizer-digests.json").read_text())


@pytest.mark.parametrize("name", sorted(MADE_MODELS))
def test_tensors_equal_those_of_llama_quantize(tmp_path: Path, name: str) -> None:
    folder = write_made_model(tmp_path / name, MADE_MODELS[name])
    # the eighty layers are there for one rule of one type
    kinds = [GgufType.Q4_K_M] if name == "eighty" else list(GgufType)
    found = {kind.value: whole_digest(tensors(ours(folder, tmp_path / f"{kind}.gguf", kind))) for kind in kinds}
    assert found == {kind.value: DIGESTS[name][kind.value] for kind in kinds}
