"""What the tests at a real API server share."""

import json
from typing import Any

from tests.cluster.api import Api, path_of

NAMESPACE = "manifests"
STRICT = {"fieldValidation": "Strict"}


def table(
    api: Api, kind: str, name: str, namespace: str = NAMESPACE, *, wide: bool = False
) -> tuple[list[str], list[Any]]:
    """Column names and cells that `kubectl get` would print."""
    path = path_of(kind, namespace, name)
    shown = json.loads(api.request("GET", path, accept="application/json;as=Table;g=meta.k8s.io;v=v1"))
    kept = [index for index, column in enumerate(shown["columnDefinitions"]) if wide or not column["priority"]]
    columns = [shown["columnDefinitions"][index]["name"] for index in kept]
    return columns, [shown["rows"][0]["cells"][index] for index in kept]
