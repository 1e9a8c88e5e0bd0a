"""Manifests read from YAML as the API server reads them: JSON's types, no key twice."""

import re
import sys
from pathlib import Path
from typing import Any

import yaml

STDIN = Path("-")
"""The path that means standard input."""


class ManifestError(Exception):
    """A file is no YAML, cannot be read, or says a key twice; the message names file and line."""


def load_manifests(path: Path) -> list[dict[str, Any]]:
    """The documents of a YAML file, empty ones left out; raises ManifestError."""
    try:
        text = sys.stdin.read() if path == STDIN else path.read_text(encoding="utf-8")
        documents = [document for document in yaml.load_all(text, _Loader) if document is not None]
    except OSError as error:
        raise ManifestError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ManifestError(f"{path}: is not UTF-8 text") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise ManifestError(f"{path}: line {line}: {error.problem}") from error
    except yaml.YAMLError as error:
        raise ManifestError(f"{path}: {error}") from error
    for document in documents:
        if not isinstance(document, dict):
            raise ManifestError(f"{path}: a manifest is a mapping of fields, not {document!r:.40}")
    if not documents:
        raise ManifestError(f"{path}: is empty")
    return documents


_MERGE = "tag:yaml.org,2002:merge"


def parse_value(text: str) -> Any:
    """One value as it would stand in a manifest: `3e-4` is a number, `{a: 1}` a mapping; raises ManifestError."""
    try:
        return yaml.load(text, _Loader)  # noqa: S506 - a SafeLoader
    except yaml.YAMLError as error:
        raise ManifestError(f"{text!r} is no YAML value") from error


class _Loader(yaml.SafeLoader):
    """YAML with JSON's types: 3e-4 is a number, and a date is a text."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen = set()
        for key_node, _ in node.value:
            if key_node.tag == _MERGE:
                continue
            key = self.construct_object(key_node, deep=True)
            if not isinstance(key, str):
                raise yaml.constructor.ConstructorError(None, None, f"key {key!r} is not a text", key_node.start_mark)
            if key in seen:
                raise yaml.constructor.ConstructorError(
                    None, None, f"key {key!r} stands here twice", key_node.start_mark
                )
            seen.add(key)
        return super().construct_mapping(node, deep)


_KEPT = {"tag:yaml.org,2002:bool", "tag:yaml.org,2002:null", _MERGE}
_Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in forms if tag in _KEPT]
    for first, forms in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"^[-+]?(0|[1-9][0-9]*)$"), list("-+0123456789"))
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"^[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?$"),
    list("-+.0123456789"),
)
