"""The CustomResourceDefinition, made from the models and the rules. `python -m dram_operator.api.crd` writes it."""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from dram_operator.api.distillation_job import GROUP, KIND, PLURAL, VERSION, DistillationJobSpec
from dram_operator.api.rule import Rule
from dram_operator.api.rules import RULES
from dram_operator.api.schema import Schema, structural, without_defaults
from dram_operator.api.status import DistillationJobStatus

FILE = f"{GROUP}_{PLURAL}.yaml"

_SUCCEEDED = '.status.conditions[?(@.type=="Succeeded")]'
COLUMNS: tuple[tuple[str, str, str, str], ...] = (
    ("Status", "string", f"{_SUCCEEDED}.reason", "Why the job is where it is."),
    ("Stage", "string", ".status.stage", "The stage at work."),
    ("Percent", "integer", ".status.progress.percent", "Share of the whole job that is done."),
    ("ETA", "integer", ".status.progress.etaSeconds", "Estimated seconds until the stage at work ends."),
    ("Score", "string", ".status.bestScore", "Golden score of the best variant that may be released."),
    ("Gate", "string", ".status.gate", "The gates in a word: Pending, Pass, Warn, or the first that failed."),
    ("Age", "date", ".metadata.creationTimestamp", "Time since the job was made."),
)
"""Printer columns: name, type, path, description."""
WIDE_COLUMNS: tuple[tuple[str, str, str, str], ...] = (
    ("Run", "integer", ".status.run", "Number of the run."),
    ("Step", "integer", ".status.progress.step", "Steps that the stage at work has done."),
    ("Best", "string", ".status.best", "The best variant that may be released."),
    ("Report", "string", ".status.reportUri", "Where the report lies."),
    ("Message", "string", f"{_SUCCEEDED}.message", "The status in a sentence."),
)
"""Columns that `kubectl get -o wide` adds."""


def object_schema() -> Schema:
    """The schema of a whole DistillationJob, rules included."""
    text = {"type": "string"}
    schema: Schema = {
        "description": "A model distilled, exported, proven and published.",
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": text | {"description": "Version of the API that the object is written in."},
            "kind": text | {"description": "Always DistillationJob."},
            "metadata": {"type": "object"},
            "spec": structural(DistillationJobSpec),
            "status": without_defaults(structural(DistillationJobStatus)),
        },
    }
    for rule in RULES:
        node_at(schema, rule.path).setdefault("x-kubernetes-validations", []).append(_validation(rule))
    return schema


def node_at(schema: Schema, path: str) -> Schema:
    """The schema of the value at a rule's path."""
    for step in filter(None, path.split(".")):
        schema = schema["properties"][step.removesuffix("[]")]
        schema = schema["items"] if step.endswith("[]") else schema
    return schema


def definition() -> dict[str, Any]:
    """The CustomResourceDefinition as an API object."""
    columns = [_column(*column) for column in COLUMNS] + [_column(*column, priority=1) for column in WIDE_COLUMNS]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{PLURAL}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": KIND,
                "listKind": f"{KIND}List",
                "plural": PLURAL,
                "singular": KIND.lower(),
                "shortNames": ["dj"],
                "categories": ["dram"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": object_schema()},
                }
            ],
        },
    }


def manifest() -> str:
    """The CustomResourceDefinition as the YAML text of `crds/`."""
    head = "# Made from operator/dram_operator/api by `make crds`; edits belong there.\n"
    return head + yaml.dump(definition(), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


class _Plain(yaml.SafeDumper):
    """Writes equal parts in full, and quotes what YAML 1.1 calls a boolean: a property `n` became `false` for Helm and kubectl."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


# Single letters are booleans in YAML 1.1, which Go's readers follow and PyYAML does not.
_Plain.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("[yYnN]$"), list("yYnN"))


def _validation(rule: Rule) -> Schema:
    shown = rule.message_expression
    validation = {"rule": rule.rule} | ({"messageExpression": shown} if shown else {"message": rule.message})
    return validation | ({"fieldPath": rule.field} if rule.field else {})


def _column(name: str, kind: str, path: str, description: str, priority: int = 0) -> dict[str, Any]:
    column = {"name": name, "type": kind, "jsonPath": path, "description": description}
    return column | ({"priority": priority} if priority else {})


def main() -> None:
    """Write the CRD into the folder given as the only argument, by default `crds`."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "crds")
    (folder / FILE).write_text(manifest())


if __name__ == "__main__":
    main()
