"""What people hand in: a rollout's manifest, a fleet, a list of devices; and whether they fit together."""

from hashlib import sha256
from pathlib import Path

from dram_agent.fleet.reading import ScenarioInvalid, read_scenario
from dram_agent.fleet.scenario import Scenario
from dram_operator.api.edge_rollout import KIND, EdgeRollout
from dram_operator.api.manifests import ManifestError, load_manifests
from dram_operator.api.offline import check, with_defaults
from dram_operator.core.rollout.inventory import Inventory, InventoryError, inventory_of_file

SPECIFIC = (
    "the salt of the cohorts is made from it: give --digest, which the variant's status in the DistillationJob has"
)


class BadInput(ValueError):
    """Something that was handed in cannot be used; `problems` has one line for each reason."""

    def __init__(self, *problems: str) -> None:
        self.problems = problems
        super().__init__("\n".join(problems))


def read_rollout(file: Path) -> EdgeRollout:
    """The only EdgeRollout of a file, with defaults, as a cluster would take it; raises BadInput."""
    try:
        found = [one for one in load_manifests(file) if one.get("kind") == KIND]
    except ManifestError as error:
        raise BadInput(str(error)) from error
    if len(found) != 1:
        raise BadInput(f"{file}: holds {len(found)} {KIND}s: give one")
    if problems := check(found[0], local=False):
        raise BadInput(*(f"{file}: {problem}" for problem in problems))
    manifest = with_defaults(found[0])
    manifest.pop("status", None)
    manifest["metadata"].setdefault("namespace", "default")
    return EdgeRollout.from_object(manifest)


def read_fleet(file: Path, rollout: EdgeRollout) -> Scenario:
    """The fleet of a file, when it has what the rollout asks of it; raises BadInput."""
    try:
        scenario = read_scenario(file)
    except ScenarioInvalid as error:
        raise BadInput(*error.problems) from error
    own = [metric.name for metric in rollout.spec.analysis.metrics if metric.query]
    problems = [
        f"{file}: groups[{number}].stable.measures: metric {name} of the rollout has a query of its own, and a fleet "
        f"answers no PromQL: give {name} the figure of a usual device here, and in candidate.measures where it differs"
        for number, group in enumerate(scenario.groups)
        for name in own
        if name not in group.stable.measures
    ]
    if problems:
        raise BadInput(*problems)
    return scenario


def read_inventory(file: Path) -> Inventory:
    """The devices of a JSON Lines file; raises BadInput."""
    try:
        return inventory_of_file(file.read_text(encoding="utf-8"), Inventory(()))
    except OSError as error:
        raise BadInput(f"{file}: cannot be read: {error.strerror}") from error
    except (UnicodeDecodeError, InventoryError) as error:
        raise BadInput(f"{file}: {error}") from error


def exact_digest(rollout: EdgeRollout, given: str | None) -> str:
    """The digest of the release that decides which devices a step takes; raises BadInput where nobody knows it."""
    digest = given or rollout.spec.artifact.sha256
    if digest is None:
        raise BadInput(f"the digest of {_job(rollout)} is not in the manifest, and {SPECIFIC}")
    if len(digest) != 64 or set(digest) - set("0123456789abcdef"):
        raise BadInput(f"--digest {digest}: a digest has 64 hex digits, in lower case")
    return digest


def any_digest(rollout: EdgeRollout, given: str | None) -> str:
    """The digest, or one made up from the job's name: for a fleet that is made up as well."""
    made_up = sha256(_job(rollout).encode()).hexdigest()
    return exact_digest(rollout, given or rollout.spec.artifact.sha256 or made_up)


def _job(rollout: EdgeRollout) -> str:
    job = rollout.spec.artifact.job_ref
    return f"{job.name}/{job.variant}" if job else ""
