"""What a simulation leaves behind: a page that needs nothing else, and the timeline as JSON."""

from pathlib import Path

import yaml

from dram_agent.fleet.scenario import Scenario
from dram_operator.simulation import plots
from dram_operator.simulation.simulation import Simulation
from dram_operator.simulation.timeline import Verdict, clock
from dram_workers.publish.rendering import render

MOODS = {
    Verdict.COMPLETED: "good",
    Verdict.ROLLED_BACK: "bad",
    Verdict.STALLED: "warn",
    Verdict.UNFINISHED: "warn",
}
HEADLINES = {
    Verdict.COMPLETED: "The candidate becomes stable",
    Verdict.ROLLED_BACK: "The candidate is rolled back",
    Verdict.STALLED: "The rollout waits for people",
    Verdict.UNFINISHED: "The rollout is still on its way when the time is over",
}


def write(simulation: Simulation, folder: Path) -> tuple[Path, Path]:
    """Write `timeline.json` and `report.html`; returns their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    told, page = folder / "timeline.json", folder / "report.html"
    told.write_text(simulation.timeline.to_json(seconds=simulation.now), encoding="utf-8")
    page.write_text(page_of(simulation), encoding="utf-8")
    return told, page


def page_of(simulation: Simulation) -> str:
    """The page as one HTML document; the same simulation makes the same bytes."""
    timeline, rollout = simulation.timeline, simulation.rollout
    return render(
        "simulation.html.j2",
        package="dram_operator.simulation",
        channel=rollout.channel,
        headline=HEADLINES[timeline.verdict],
        mood=MOODS[timeline.verdict],
        timeline=timeline,
        took=clock(simulation.now),
        devices=simulation.devices.population.size,
        seed=simulation.scenario.seed,
        clock=clock,
        course=plots.course_plot(timeline),
        states=plots.devices_plot(timeline),
        metrics=[(name, plots.metric_plot(timeline, name)) for name in plots.metrics(timeline)],
        spec=_yaml(rollout.spec.model_dump(mode="json", exclude_defaults=True)),
        fleet=_fleet_yaml(simulation.scenario),
    )


def _fleet_yaml(scenario: Scenario) -> str:
    return _yaml(scenario.model_dump(mode="json", exclude_defaults=True))


def _yaml(value: object) -> str:
    return yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=110)
