"""Which type a tensor gets, told rule by rule."""

import pytest
from gguf import GGMLQuantizationType as Q

from dram_workers.export.recipe import ModelTraits, tensor_type
from dram_workers.stages import GgufType

LAYERS = 16
TIED = ModelTraits(layers=LAYERS, tied=True)
UNTIED = ModelTraits(layers=LAYERS, tied=False)
WIDE = (512, 512)


@pytest.mark.parametrize(
    ("name", "shape", "kind", "traits", "want"),
    [
        ("blk.0.attn_norm.weight", (512,), "Q4_K_M", TIED, Q.F32),
        ("blk.0.attn_q.bias", (512,), "Q4_K_M", TIED, Q.F32),
        ("blk.0.attn_q_norm.weight", (64,), "F16", TIED, Q.F32),
        ("blk.3.attn_q.weight", WIDE, "F16", TIED, Q.F16),
        ("blk.3.attn_q.weight", WIDE, "Q4_K_M", TIED, Q.Q4_K),
        ("token_embd.weight", WIDE, "Q4_K_M", TIED, Q.Q6_K),
        ("token_embd.weight", WIDE, "Q4_K_M", UNTIED, Q.Q4_K),
        ("output.weight", WIDE, "Q4_K_M", UNTIED, Q.Q6_K),
        ("output.weight", WIDE, "Q4_0", UNTIED, Q.Q6_K),
        ("output.weight", WIDE, "Q8_0", UNTIED, Q.Q8_0),
        ("output.weight", (512, 96), "Q5_K_M", UNTIED, Q.Q8_0),
        # 576 fits Q4_0's block of 32, so the output is meant to be Q6_K, which does not fit
        ("token_embd.weight", (512, 576), "Q4_0", TIED, Q.Q8_0),
        *((f"blk.{layer}.ffn_down.weight", WIDE, "Q4_K_M", TIED, Q.Q6_K) for layer in (0, 1, 4, 7, 10, 13, 14, 15)),
        *((f"blk.{layer}.attn_v.weight", WIDE, "Q5_K_M", TIED, Q.Q5_K) for layer in (2, 3, 5, 6, 8, 9, 11, 12)),
        ("blk.0.ffn_up.weight", WIDE, "Q4_K_M", TIED, Q.Q4_K),
        ("blk.0.ffn_down.weight", WIDE, "Q4_0", TIED, Q.Q4_0),
        ("blk.3.attn_q.weight", (512, 96), "Q4_K_M", TIED, Q.Q5_0),
        ("blk.3.attn_q.weight", (512, 96), "Q5_K_M", TIED, Q.Q5_1),
        ("blk.3.attn_q.weight", (512, 96), "Q6_K", TIED, Q.Q8_0),
        ("blk.3.attn_q.weight", (512, 80), "Q4_K_M", TIED, Q.F16),
        ("blk.3.attn_q.weight", (512, 80), "Q8_0", TIED, Q.F16),
        ("blk.2.attn_v.weight", WIDE, "Q4_K_M", ModelTraits(80, tied=True, seventy_billion=True), Q.Q6_K),
        ("blk.11.attn_v.weight", WIDE, "Q4_K_M", ModelTraits(80, tied=True, seventy_billion=True), Q.Q5_K),
        ("blk.11.ffn_down.weight", WIDE, "Q4_K_M", ModelTraits(80, tied=True, seventy_billion=True), Q.Q4_K),
    ],
)
def test_a_tensor_gets_the_type_of_its_rule(
    name: str, shape: tuple[int, ...], kind: str, traits: ModelTraits, want: Q
) -> None:
    assert tensor_type(name, shape, GgufType(kind), traits) == want
