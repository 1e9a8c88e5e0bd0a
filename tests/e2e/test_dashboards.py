"""The chart's dashboards over a Prometheus that watched everything."""

from tests.e2e.bench import Bench
from tests.monitoring.boards import queries, was_shown

BACK = "90m:10s"
"""The whole run, as often as the pods are scraped twice."""


def test_every_panel_had_a_number_while_the_other_stories_happened(bench: Bench) -> None:
    """After the other stories: a loss while something trained, a rollback while there was one, pushes from a gateway once it was there."""
    silent = [asked.where for asked in queries() if not was_shown(bench.story.prometheus, asked, back=BACK)]

    assert silent == []
