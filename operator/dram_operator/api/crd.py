"""The CustomResourceDefinitions, made from the models and the rules. `python -m dram_operator.api.crd` writes them."""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

from dram_operator.api.distillation_job import GROUP, VERSION
from dram_operator.api.resources import RESOURCES, Column, Resource
from dram_operator.api.rule import Rule
from dram_operator.api.schema import Schema, structural, without_defaults


def object_schema(resource: Resource) -> Schema:
    """The schema of a whole object, rules included."""
    text = {"type": "string"}
    schema: Schema = {
        "description": resource.description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": text | {"description": "Version of the API that the object is written in."},
            "kind": text | {"description": f"Always {resource.kind}."},
            "metadata": {"type": "object"},
            "spec": structural(resource.spec),
            "status": without_defaults(structural(resource.status)),
        },
    }
    for rule in resource.rules:
        node_at(schema, rule.path).setdefault("x-kubernetes-validations", []).append(_validation(rule))
    return schema


def node_at(schema: Schema, path: str) -> Schema:
    """The schema of the value at a rule's path."""
    for step in filter(None, path.split(".")):
        schema = schema["properties"][step.removesuffix("[]")]
        schema = schema["items"] if step.endswith("[]") else schema
    return schema


def definition(resource: Resource) -> dict[str, Any]:
    """The CustomResourceDefinition as an API object."""
    columns = [_column(column) for column in resource.columns]
    columns += [_column(column, priority=1) for column in resource.wide_columns]
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{resource.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {
                "kind": resource.kind,
                "listKind": f"{resource.kind}List",
                "plural": resource.plural,
                "singular": resource.kind.lower(),
                "shortNames": [resource.short_name],
                "categories": ["dram"],
            },
            "versions": [
                {
                    "name": VERSION,
                    "served": True,
                    "storage": True,
                    "subresources": {"status": {}},
                    "additionalPrinterColumns": columns,
                    "schema": {"openAPIV3Schema": object_schema(resource)},
                }
            ],
        },
    }


def manifest(resource: Resource) -> str:
    """The CustomResourceDefinition as the YAML text of `crds/`."""
    head = "# Made from operator/dram_operator/api by `make crds`; edits belong there.\n"
    return head + yaml.dump(definition(resource), Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True)


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


def _column(column: Column, priority: int = 0) -> dict[str, Any]:
    shown = {"name": column.name, "type": column.type, "jsonPath": column.path, "description": column.description}
    return shown | ({"priority": priority} if priority else {})


def main() -> None:
    """Write the CRDs into the folder given as the only argument, by default `crds`."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "crds")
    for resource in RESOURCES:
        (folder / resource.file).write_text(manifest(resource))


if __name__ == "__main__":
    main()
