"""What the API server was asked, by whom: its audit log, to compare with the rules of a Role."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

POLICY = """apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
- level: None
  users: ["system:apiserver", "system:kube-controller-manager", "system:kube-scheduler", "system:kube-proxy", "system:coredns"]
- level: None
  userGroups: ["system:nodes"]
- level: Metadata
"""


@dataclass(frozen=True, order=True)
class Access:
    """One kind of request, in the words of an RBAC rule."""

    group: str
    """API group; empty for the core group."""
    resource: str
    """With its subresource after a slash, e.g. `distillationjobs/status`."""
    verb: str


def accesses(log: Path, user: str) -> set[Access]:
    """Every kind of request that a user made of the API's resources, refused ones included."""
    return {access for event in events(log) if event["user"]["username"] == user and (access := _access(event))}


def refused(log: Path, user: str, since: str = "") -> list[str]:
    """What a user asked for without the right to it since a time as in metadata.creationTimestamp, e.g. `get secrets in tv`.

    What admission or a quota refuses is not here.
    """
    return [
        f"{event['verb']} {event.get('objectRef', {}).get('resource')} in {event.get('objectRef', {}).get('namespace')}"
        for event in events(log)
        if event["user"]["username"] == user
        and event["requestReceivedTimestamp"] >= since
        and event.get("annotations", {}).get("authorization.k8s.io/decision") == "forbid"
    ]


def places(log: Path, user: str, resource: str) -> set[str]:
    """The namespaces in which a user asked for a resource."""
    targets = [event.get("objectRef", {}) for event in events(log) if event["user"]["username"] == user]
    return {target.get("namespace", "") for target in targets if target.get("resource") == resource}


def users(log: Path) -> set[str]:
    """Who asked for anything."""
    return {str(event["user"]["username"]) for event in events(log)}


def requests(
    log: Path, user: str, verbs: tuple[str, ...] = ("create", "update", "patch", "delete")
) -> list[dict[str, Any]]:
    """The finished requests of a user with one of these verbs, oldest first, as audit events."""
    return [
        event
        for event in events(log)
        if event["user"]["username"] == user and event["verb"] in verbs and event["stage"] == "ResponseComplete"
    ]


def events(log: Path) -> list[dict[str, Any]]:
    """Every audit event so far of somebody whom the API server knows.

    Whose credentials it refused, e.g. the token of an account that is gone, has no name in the log and got nothing.
    """
    if not log.exists():
        return []
    told = [json.loads(line) for line in log.read_text().splitlines() if line.endswith("}")]
    return [event for event in told if "username" in event["user"]]


def rules_accesses(rules: list[dict[str, Any]]) -> set[Access]:
    """What a list of RBAC rules allows."""
    return {
        Access(group, resource, verb)
        for rule in rules
        for group in rule.get("apiGroups", [])
        for resource in rule.get("resources", [])
        for verb in rule["verbs"]
    }


def _access(event: dict[str, Any]) -> Access | None:
    target = event.get("objectRef")
    if target is None or "resource" not in target:
        return None
    subresource = f"/{target['subresource']}" if target.get("subresource") else ""
    return Access(target.get("apiGroup", ""), target["resource"] + subresource, event["verb"])
