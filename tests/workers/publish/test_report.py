"""The report: complete, self-contained, and safe whatever a model says."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import yaml

from dram_workers.publish.figures import bounds, duration, file_size, quantity
from dram_workers.publish.report import gauge
from dram_workers.results import GateRow
from tests.workers.publish.finished import QUESTIONS, FinishedRun

ADDRESSES = {"src", "href", "xlink:href", "action", "data", "poster", "srcset"}


class Page(HTMLParser):
    """What a browser would fetch, run and show."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.text = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ADDRESSES]
        self.ids += [value or "" for name, value in attrs if name == "id"]

    def handle_data(self, data: str) -> None:
        self.text += data


def published(run: FinishedRun) -> Page:
    run.publish()
    return Page(run.report())


def test_nothing_is_fetched_or_run(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    page = published(run)
    assert all(address.startswith("#") for address in page.addresses)
    assert not {"script", "link", "img", "iframe", "object", "embed"} & set(page.tags)
    assert "@import" not in run.report()
    assert not re.search(r"url\((?!#)", run.report())


def test_ids_are_unique_and_every_link_leads_somewhere(tmp_path: Path) -> None:
    page = published(FinishedRun(tmp_path))
    assert len(page.ids) == len(set(page.ids))
    assert {address.removeprefix("#") for address in page.addresses} <= set(page.ids)


def test_what_a_model_says_is_text(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script><img src=x onerror=alert(1)>"
    page = published(FinishedRun(tmp_path, questions=(*QUESTIONS, (attack, attack))))
    assert not {"script", "img"} & set(page.tags)
    assert attack in page.text


def test_a_variant_that_was_given_up_before_training_says_why(tmp_path: Path) -> None:
    message = "sizeMiB must be at most 10 MiB and is 50 MiB: choose a coarser export type"
    missed = GateRow(
        variant="q4",
        stage="Preflight",
        gate="performance.maxSizeMiB",
        value=50,
        limit=10,
        verdict="Fail",
        message=message,
    )
    page = published(FinishedRun(tmp_path, releasable={"q8": True}, gates=[missed]))
    assert f"before training, performance.maxSizeMiB: {message}" in page.text
    assert "could not be exported" not in page.text


def test_a_warning_of_an_earlier_stage_stands_at_the_top(tmp_path: Path) -> None:
    page = published(FinishedRun(tmp_path, warnings=("resolve: a training pod may use 300 MiB",)))
    assert "resolve: a training pod may use 300 MiB" in page.text


def test_every_gate_stands_with_its_figures(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path, releasable={"q8": True, "q4": False})
    text = published(run).text
    for row in run.gates:
        assert row.gate in text
        assert row.message in text
    assert "[430, 510]" in text
    assert "300 ms" in text
    assert "held back" in text


def test_the_worst_golden_answers_come_first(tmp_path: Path) -> None:
    page = published(FinishedRun(tmp_path))
    golden = page.text[page.text.index("Golden answers, worst first") :]
    places = [golden.index(question) for question, _ in QUESTIONS]
    assert min(places) == golden.index("Can I cancel within 14 days?")
    assert "1 of 4 items fail in at least one variant" in golden
    for subject in ("teacher", "student", "q8", "q4"):
        assert subject in golden


def test_curves_plots_and_digests_are_there(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    page = published(run)
    for title in (
        "Loss and its terms",
        "Schedules, learning rate and gradient norm",
        "Golden score against size",
        "Size of every",
        "Peak memory of",
    ):
        assert f'aria-label="{title}' in run.report()
    assert all(given.digest[:23] in page.text for given in run.inputs.values())
    for words in (
        "soft targets",
        "hard labels",
        "learning rate",
        "llama-cli -m support-bot-Q8_0.gguf",
        "3 min 18 s",
        "apache-2.0",
    ):
        assert words in page.text


def test_the_manifest_can_be_applied_again(tmp_path: Path) -> None:
    run = FinishedRun(tmp_path)
    run.publish()
    found = re.search(r'<h2 id="manifest">.*?<pre>(.*?)</pre>', run.report(), re.DOTALL)
    assert found
    manifest = yaml.safe_load(Page(found[1]).text)
    assert manifest["kind"] == "DistillationJob"
    assert manifest["metadata"] == {"name": "support-bot", "namespace": "default"}
    assert manifest["spec"] == run.spec


@pytest.mark.parametrize(("steps", "want"), [(0, "No step was trained"), (1, "One step was trained")])
def test_a_training_without_a_curve_says_so(tmp_path: Path, steps: int, want: str) -> None:
    assert want in published(FinishedRun(tmp_path, steps=steps)).text


def test_a_run_without_any_variant_has_a_report(tmp_path: Path) -> None:
    text = published(FinishedRun(tmp_path, releasable={})).text
    assert "No variant may be released" in text
    assert "q8 could not be exported" in text


def test_a_gauge_keeps_the_order_of_its_figures() -> None:
    row = GateRow(
        variant="v", gate="g", value=500, low=480, high=560, limit=600, unit="ms", verdict="Pass", message="m"
    )
    marks = gauge(row)
    assert marks is not None
    assert 0 < marks.low < marks.value < marks.high < marks.limit < 100
    assert gauge(row.model_copy(update={"value": None, "low": None, "high": None})) is None


@pytest.mark.parametrize(
    ("value", "want"),
    [
        (quantity(0.9523, name="goldenPassRate"), "95.2 %"),
        (quantity(0.83819, name="goldenScore"), "0.838"),
        (quantity(134_515_008), "134,515,008"),
        (quantity(0.000123, "nats"), "0.000123 nats"),
        (quantity(0), "0"),
        (bounds(None, None), ""),
        (bounds(0.5, None), "[0.5, …]"),
        (duration(45.4), "45 s"),
        (duration(192), "3 min 12 s"),
        (duration(7500), "2 h 5 min"),
        (file_size(150 * 2**20), "150.0 MiB"),
        (file_size(3 * 2**30), "3.00 GiB"),
    ],
)
def test_numbers_read_well(value: str, want: str) -> None:
    assert value == want
