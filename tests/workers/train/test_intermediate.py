"""Which layers are compared, and that what is taken of them is what they put out."""

from pathlib import Path

import pytest
import torch

from dram_workers.errors import BadInput
from dram_workers.objective import AttentionMaps, HiddenStates, LayerPair
from dram_workers.train.attention import SEGMENTS
from dram_workers.train.batches import lay_out
from dram_workers.train.distiller import check_layers, target_hidden
from dram_workers.train.intermediate import LayerMap, Layers, even_pairs, taped
from dram_workers.train.pretrained import load_model
from tests.models import ModelShape, write_model
from tests.workers.train.test_batches import a_dataset
from tests.workers.train.training import an_identity


def test_a_cut_follows_the_layers_that_were_kept() -> None:
    assert [(pair.student, pair.teacher) for pair in even_pairs(3, 4)] == [(0, 0), (1, 2), (2, 3)]
    assert [(pair.student, pair.teacher) for pair in even_pairs(4, 3)] == [(0, 0), (2, 1), (3, 2)]


def test_named_pairs_are_taken_as_they_are() -> None:
    pairs = (LayerPair(student=1, teacher=0), LayerPair(student=0, teacher=3))
    found = LayerMap.of(an_identity(hidden_states=HiddenStates(layers=pairs), attention=AttentionMaps()), 2, 4)
    assert found == LayerMap(Layers((1, 0), (0, 1)), Layers((0, 3), (0, 3)))


@pytest.mark.parametrize(("side", "pair"), [("student", (2, 0)), ("teacher", (0, 4))])
def test_a_layer_that_a_model_lacks_is_refused(side: str, pair: tuple[int, int]) -> None:
    pairs = (LayerPair(student=pair[0], teacher=pair[1]),)
    with pytest.raises(BadInput, match=f"layer {max(pair)} of the {side} is to be compared"):
        LayerMap.of(an_identity(attention=AttentionMaps(layers=pairs)), 2, 4)


@pytest.mark.parametrize("packed", [True, False])
def test_hidden_states_are_the_layers_outputs_at_the_targets(tmp_path: Path, *, packed: bool) -> None:
    model = load_model(
        write_model(tmp_path / "model", ModelShape(vocabulary=1024)),
        torch.float32,
        "f",
        attention=SEGMENTS if packed else "sdpa",
    )
    batch = lay_out(a_dataset(tmp_path / "data", [5, 9, 7]), (0, 1, 2), packed=packed)
    with torch.no_grad(), taped(model, Layers(hidden=(2, 0)), batch.targets_N) as tape:
        target_hidden(model, batch, tape)
        more = {"segments": batch.segments} if packed else {"attention_mask": batch.mask_RL}
        want = model(
            input_ids=batch.tokens_RL, position_ids=batch.positions_RL, output_hidden_states=True, **more
        ).hidden_states
    for got, number in zip(tape.states().hidden, (3, 1), strict=True):
        torch.testing.assert_close(got, want[number].flatten(0, 1)[batch.targets_N])


def test_heads_are_those_of_the_attention(tmp_path: Path) -> None:
    folder = write_model(tmp_path / "model", ModelShape(vocabulary=1024))
    model = load_model(folder, torch.float32, "f", attention=SEGMENTS)
    eager = load_model(folder, torch.float32, "f", attention="eager")
    batch = lay_out(a_dataset(tmp_path / "data", [9]), (0,), packed=True)
    with torch.no_grad(), taped(model, Layers(attention=(1,)), batch.targets_N) as tape:
        target_hidden(model, batch, tape)
        want = eager(input_ids=batch.tokens_RL, output_attentions=True).attentions[1][0]
    (heads,) = tape.states().heads
    keys = heads.key_KLA.repeat_interleave(2, 0)
    scores = heads.query_HLA @ keys.transpose(1, 2) * heads.scale
    seen = torch.ones(9, 9, dtype=torch.bool).tril()
    torch.testing.assert_close(scores.masked_fill(~seen, float("-inf")).softmax(-1), want)


def test_a_model_that_hides_its_heads_is_refused_by_name(tmp_path: Path) -> None:
    model = load_model(write_model(tmp_path / "model"), torch.float32, "f", attention=SEGMENTS)
    for layer in model.model.layers:
        layer.self_attn.layer_idx = None
    check_layers(model, Layers(hidden=(1,)), packed=True, field="spec.teacher")
    with pytest.raises(BadInput, match="LlamaForCausalLM does not let layer 1 be compared"):
        check_layers(model, Layers(attention=(1,)), packed=True, field="spec.teacher")
