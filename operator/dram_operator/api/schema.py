"""From a pydantic model to a structural schema, the form of JSON schema that a CustomResourceDefinition takes."""

from typing import Any

from pydantic import BaseModel

Schema = dict[str, Any]

FREE_FORM: Schema = {"x-kubernetes-preserve-unknown-fields": True}
_DROPPED = frozenset({"title", "$ref", "$defs", "anyOf", "allOf", "const", "prefixItems", "default", "discriminator"})


def by(*keys: str) -> Schema:
    """Mark a list as a map whose items are told apart by these fields; duplicates are refused."""
    return {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": list(keys)}


def structural(model: type[BaseModel]) -> Schema:
    """The structural schema of a model: self-contained, with descriptions and static defaults."""
    schema = model.model_json_schema(by_alias=True, mode="validation")
    return _convert(schema, schema.get("$defs", {}))


def without_defaults(schema: Schema) -> Schema:
    """The same schema with no default anywhere: for a status, which is written whole by one writer."""
    kept = {key: value for key, value in schema.items() if key != "default"}
    if "properties" in kept:
        kept["properties"] = {name: without_defaults(value) for name, value in kept["properties"].items()}
    for inner in ("items", "additionalProperties"):
        if inner in kept:
            kept[inner] = without_defaults(kept[inner])
    return kept


def _convert(node: Schema, definitions: dict[str, Schema]) -> Schema:
    node = _resolved(node, definitions)
    schema: Schema = {key: value for key, value in node.items() if key not in _DROPPED}
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    _unions(schema, node)
    _bounds(schema)
    _children(schema, node, definitions)
    default = _static(node.get("default"), schema)
    return schema if default in (None, {}, []) else schema | {"default": default}


def _resolved(node: Schema, definitions: dict[str, Schema]) -> Schema:
    """Follow references and drop the null branch of an optional field; what stands beside a reference wins."""
    while True:
        branches = [branch for branch in node.get("anyOf", []) if branch.get("type") != "null"]
        if len(branches) == 1:
            node = branches[0] | {key: value for key, value in node.items() if key != "anyOf"}
        elif "$ref" in node:
            target = definitions[node["$ref"].rsplit("/", 1)[-1]]
            node = target | {key: value for key, value in node.items() if key != "$ref"}
        else:
            return node


def _unions(schema: Schema, node: Schema) -> None:
    """Say what several types, or a single value, become where every field has one type."""
    if node.get("x-kubernetes-int-or-string"):
        del schema["type"]
        schema["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    elif "anyOf" in node:
        schema |= FREE_FORM
    if "const" in node:
        schema["enum"] = [node["const"]]


def _bounds(schema: Schema) -> None:
    for bound in ("Minimum", "Maximum"):
        if (limit := schema.pop(f"exclusive{bound}", None)) is not None:
            schema |= {bound.lower(): limit, f"exclusive{bound}": True}


def _children(schema: Schema, node: Schema, definitions: dict[str, Schema]) -> None:
    items = node["prefixItems"][0] if "prefixItems" in node else node.get("items")
    if items is not None:
        schema["items"] = _convert(items, definitions)
    if "properties" in schema:
        schema["properties"] = {name: _convert(value, definitions) for name, value in schema["properties"].items()}
    schema.pop("propertyNames", None)
    additional = schema.pop("additionalProperties", None)
    if additional is True:
        schema |= FREE_FORM
    elif isinstance(additional, dict):
        schema["additionalProperties"] = _convert(additional, definitions)


def _static(default: Any, schema: Schema) -> Any:
    """A default without nulls and without empty objects and lists, which mean the same as absence."""
    if not isinstance(default, dict):
        return default
    named = schema.get("properties", {})
    kept = {name: _static(value, named.get(name, {})) for name, value in default.items()}
    return {name: value for name, value in kept.items() if value not in (None, {}, [])}
