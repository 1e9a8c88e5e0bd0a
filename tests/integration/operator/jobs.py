"""What the tests ask about a DistillationJob in the API server."""

import json

from tests.cluster.api import Api, Object, wait_until

TERMINAL = ("True", "False")


def condition(job: Object, kind: str) -> tuple[str, str]:
    """Status and reason of a condition; Unknown before the first visit."""
    for found in job.get("status", {}).get("conditions", ()):
        if found["type"] == kind:
            return found["status"], found["reason"]
    return "Unknown", ""


def wait_for(api: Api, namespace: str, name: str, kind: str, status: str, reason: str | None = None) -> Object:
    """Wait until a condition holds; returns the object."""

    def look() -> Object | None:
        job = api.get("DistillationJob", name, namespace)
        found = condition(job, kind)
        return job if found[0] == status and reason in (None, found[1]) else None

    return wait_until(
        look, f"{namespace}/{name} to be {kind}={status} {reason or ''}", explain=lambda: tell(api, namespace)
    )


def wait_for_stage(api: Api, namespace: str, name: str, stage: str, state: str) -> Object:
    """Wait until a stage is in a state; returns the object."""

    def look() -> Object | None:
        job = api.get("DistillationJob", name, namespace)
        return job if stages(job).get(stage, {}).get("state") == state else None

    return wait_until(look, f"{stage} of {namespace}/{name} to be {state}", explain=lambda: tell(api, namespace))


def stages(job: Object) -> dict[str, Object]:
    """Stages by id."""
    return {stage["id"]: stage for stage in job.get("status", {}).get("stages", ())}


def outcome(job: Object) -> Object:
    """What must not depend on when the operator died: everything but times, attempts and their counts.

    Jobs of other namespaces may be compared: the namespace, which publish must know, is left out.
    """
    status = json.loads(json.dumps(job["status"]).replace(job["metadata"]["namespace"], "NAMESPACE"))
    return {
        "conditions": {c["type"]: (c["status"], c["reason"]) for c in status["conditions"]},
        "stages": {s["id"]: _result(s) for s in status["stages"]},
        "variants": status["variants"],
        "gates": status["gates"],
        "report": status.get("reportUri"),
        "plan": status["plan"],
    }


def _result(stage: Object) -> tuple[str, str | None, Object | None]:
    key = stage.get("key") if stage["id"] != "publish" else None
    return stage["state"], key, stage.get("result", {}).get("outputs")


def tell(api: Api, namespace: str) -> str:
    """A namespace in a few lines."""
    lines = []
    for job in api.list("DistillationJob", namespace):
        lines.append(
            f"{job['metadata']['name']}: {[(s['id'], s['state'], s.get('reason'), s.get('message')) for s in stages(job).values()]}"
        )
        lines.append(
            str(
                [
                    (c["type"], c["status"], c["reason"], c["message"])
                    for c in job.get("status", {}).get("conditions", ())
                ]
            )
        )
    for kind in ("Job", "Pod"):
        lines += [f"{kind} {o['metadata']['name']}: {o.get('status')}" for o in api.list(kind, namespace)]
    return "\n".join(lines)
