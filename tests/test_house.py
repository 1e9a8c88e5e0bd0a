"""Rules of the house that no other tool checks."""

import ast
import re
import subprocess
import sys
import tomllib
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[1]
BANNED = {"torchvision", "torchaudio", "timm"}
HEAVY = {"torch", "transformers", "deepspeed", "sentence-transformers", "scipy", "numpy", "xllamacpp", "gguf"}
CONTROL = {"kopf", "kubernetes"}
AGENT_NEVER = CONTROL | {"torch", "transformers", "deepspeed", "sentence-transformers", "scipy", "gguf"}


def sources() -> list[Path]:
    return sorted([*(ROOT / "operator").rglob("*.py"), *(ROOT / "workers").rglob("*.py")])


def pulled_by(extra: str) -> set[str]:
    """Distributions that `pip install dram[extra]` brings, by the metadata of what is installed."""
    todo, found = [Requirement(f"dram[{extra}]")], set[tuple[str, str]]()
    while todo:
        wanted = todo.pop()
        name = canonicalize_name(wanted.name)
        for kind in ("", *wanted.extras):
            if (name, kind) in found:
                continue
            found.add((name, kind))
            needs = map(Requirement, distribution(name).requires or ())
            todo += [need for need in needs if need.marker is None or need.marker.evaluate({"extra": kind})]
    return {name for name, _ in found}


@pytest.mark.parametrize(
    ("extra", "never"),
    [
        ("operator", HEAVY),
        ("kubectl", HEAVY | {"kopf"}),
        ("worker", CONTROL),
        ("local", CONTROL),
        ("agent", AGENT_NEVER),
    ],
)
def test_an_extra_pulls_nothing_of_the_other_roles(extra: str, never: set[str]) -> None:
    assert pulled_by(extra) & never == set()


def test_no_environment_has_packages_that_break_torch() -> None:
    pinned = {line.partition("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines()}
    asked = set().union(*map(pulled_by, ("operator", "kubectl", "worker", "local", "agent", "dev")))
    assert (pinned | asked) & BANNED == set()


def test_constraints_pin_everything_and_name_no_server() -> None:
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    assert [line for line in lines if not re.fullmatch(r"[a-z0-9._-]+==([0-9]+!)?[0-9][0-9a-z.]*", line)] == []
    pinned = {canonicalize_name(line.partition("==")[0]) for line in lines}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    direct = [
        *project["dependencies"],
        *(need for extra in project["optional-dependencies"].values() for need in extra),
    ]
    assert {canonicalize_name(Requirement(need).name) for need in direct} <= pinned


def test_the_operator_folder_does_not_shadow_the_standard_library() -> None:
    assert not (ROOT / "operator" / "__init__.py").exists()


def test_modules_stay_readable() -> None:
    long = {str(path): lines for path in sources() if (lines := len(path.read_text().splitlines())) > 500}
    assert long == {}
    assert [path for path in sources() if path.name in ("utils.py", "helpers.py")] == []


def test_the_core_has_no_clock() -> None:
    forbidden = {"now", "utcnow", "today"}
    calls = [
        f"{path.name}:{node.lineno}"
        for path in (ROOT / "operator/dram_operator/core").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr in forbidden
    ]
    assert calls == []


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("dram_workers.entry", {"torch", "transformers", "deepspeed", "dram_operator", "kubernetes"}),
        ("dram_workers.resolve", {"torch", "transformers", "deepspeed"}),
        ("dram_operator.app", {"torch", "transformers", "numpy", "boto3"}),
        ("dram_operator.core.distillation", {"kopf", "kubernetes", "boto3", "torch"}),
        ("dram_operator.cli", {"kopf", "kubernetes", "torch", "rich"}),
        ("dram_operator.cli.keys", {"kopf", "kubernetes", "torch", "tuf"}),
        ("dram_operator.cli.rollout", {"kopf", "kubernetes", "torch", "tuf", "numpy", "aiohttp"}),
        ("dram_operator.cli.jobs", {"kopf", "kubernetes", "torch", "tuf", "numpy", "aiohttp"}),
        ("dram_operator.cli.doctor", {"kopf", "torch", "rich", "numpy"}),
        ("dram_agent.main", {"kopf", "kubernetes", "torch", "numpy", "xllamacpp", "dram_operator"}),
        ("dram_operator.cli.run", {"kopf", "kubernetes", "torch"}),
        ("dram_operator.simulation.page", {"kopf", "kubernetes", "torch", "tuf", "aiohttp", "prometheus_client"}),
        ("dram_agent.fleet.run", {"kopf", "kubernetes", "torch", "numpy", "xllamacpp", "dram_operator"}),
        ("dram_agent.cohort", {"dram_operator", "kubernetes", "torch", "numpy", "boto3"}),
    ],
)
def test_an_import_stays_light(module: str, absent: set[str]) -> None:
    code = f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert set(loaded) & absent == set()


def test_every_command_of_the_readme_exists() -> None:
    readme = (ROOT / "README.md").read_text()
    targets = set(re.findall(r"^([a-z0-9-]+):.*## ", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"make ([a-z0-9-]+)", readme))
    assert {"demo", "test"} <= named <= targets
