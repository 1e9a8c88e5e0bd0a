"""Every example is a manifest that a cluster takes, and its data are what they claim to be."""

import json
from pathlib import Path

import pytest

from dram_operator.api.manifests import load_manifests
from dram_operator.api.offline import check
from dram_workers.golden import read_golden

EXAMPLES = Path(__file__).parents[1] / "examples"
SUPPORT_BOT = EXAMPLES / "support-bot"
MANIFESTS = sorted(
    file
    for file in EXAMPLES.rglob("*.yaml")
    if file.parent.name not in ("edge-agent", "installation") and file.name != "fleet.yaml"
)
"""All but an agent's settings, the chart's values and an imagined fleet, which are no objects of a cluster."""


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
