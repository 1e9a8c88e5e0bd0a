"""Every example is a manifest that a cluster takes, and its data are what they claim to be."""

import json
import re
from pathlib import Path

import pytest

from dram_operator.api.manifests import load_manifests
from dram_operator.api.offline import check
from dram_workers.golden import read_golden

EXAMPLES = Path(__file__).parents[1] / "examples"
SUPPORT_BOT = EXAMPLES / "support-bot"
OURS = "apiVersion: dram.dev/v1alpha1\n"
MANIFESTS = [file for file in sorted(EXAMPLES.rglob("*.yaml")) if OURS in file.read_text()]
WANTED = {"minimal", "support-bot", "gpu", "kueue", "edge-rollout", "fleet", "tutorial", "endpoint-teacher"}


def test_there_is_one_for_each_use_and_the_list_names_every_folder() -> None:
    assert {file.parent.name for file in MANIFESTS} >= WANTED
    folders = {path.name for path in EXAMPLES.iterdir() if path.is_dir()}
    assert set(re.findall(r"^- \[([\w-]+)\]\(\1\)", (EXAMPLES / "README.md").read_text(), re.MULTILINE)) == folders


@pytest.mark.parametrize("file", MANIFESTS, ids=lambda file: str(file.relative_to(EXAMPLES)))
def test_a_cluster_takes_it(file: Path) -> None:
    assert [check(manifest, local=False) for manifest in load_manifests(file)] == [[]]


def test_the_support_bot_is_judged_on_questions_that_it_never_saw() -> None:
    lines = (SUPPORT_BOT / "prompts.jsonl").read_text().splitlines()
    prompts = [json.loads(line)["messages"][-1]["content"] for line in lines]
    golden = [item.conversation[-1]["content"] for item in read_golden(SUPPORT_BOT / "golden.jsonl")]
    assert len(set(prompts)) == len(prompts) >= 200
    assert len(golden) >= 36
    assert set(golden).isdisjoint(prompts)
