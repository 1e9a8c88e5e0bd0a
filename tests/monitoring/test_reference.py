"""The pages of metrics and alerts."""

from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry

from charts.monitoring import catalogue
from charts.monitoring.reference import VALUES, main, pages
from dram_operator.api import reference as resources
from dram_operator.cli.reference import PAGE
from tests.cluster.folders import REPOSITORY
from tests.monitoring.world import Device, Gateway, Operator

REFERENCE = REPOSITORY / "docs" / "reference"


def test_the_pages_are_what_the_code_says() -> None:
    assert {name: (REFERENCE / name).read_text() for name in pages()} == pages(), "run `make docs`"


def test_no_page_is_left_over() -> None:
    assert {file.name for file in REFERENCE.iterdir()} == {*pages(), *resources.pages(), PAGE}


def test_they_are_written_into_the_folder_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["reference", str(tmp_path)])
    main()
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == pages()


@pytest.mark.parametrize(
    ("registry", "told"),
    [
        (Operator().work(), catalogue.operator_metrics()),
        (Device(1).work(), catalogue.device_metrics()),
        (Gateway().work(), catalogue.gateway_metrics()),
    ],
    ids=["operator", "device", "gateway"],
)
def test_the_catalogue_is_what_an_installation_at_work_shows(
    registry: CollectorRegistry, told: list[catalogue.Exported]
) -> None:
    seen: dict[str, frozenset[str]] = {}
    for family in registry.collect():
        for sample in family.samples:
            if not sample.name.endswith("_created"):
                seen[sample.name] = seen.get(sample.name, frozenset()) | frozenset(sample.labels)
    assert seen == {name: labels for each in told for name, labels in each.series.items()}


def test_every_metric_says_what_it_means() -> None:
    everything = catalogue.everything()
    assert [each.name for each in everything if not each.meaning.endswith(".")] == []
    assert {metric for metric, _ in VALUES} <= {each.name for each in everything}
