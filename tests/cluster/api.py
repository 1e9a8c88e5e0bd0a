"""The Kubernetes API as JSON in and JSON out: tests read objects in the words of their manifests."""

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import yaml
from kubernetes import client, config

Object = dict[str, Any]
T = TypeVar("T")

PATCH_TYPES = {
    "merge": "application/merge-patch+json",
    "json": "application/json-patch+json",
    "apply": "application/apply-patch+yaml",
}
GROUPS = {
    "Namespace": ("api/v1", "namespaces"),
    "Node": ("api/v1", "nodes"),
    "Pod": ("api/v1", "pods"),
    "Service": ("api/v1", "services"),
    "Secret": ("api/v1", "secrets"),
    "ConfigMap": ("api/v1", "configmaps"),
    "ServiceAccount": ("api/v1", "serviceaccounts"),
    "PersistentVolumeClaim": ("api/v1", "persistentvolumeclaims"),
    "Event": ("api/v1", "events"),
    "ResourceQuota": ("api/v1", "resourcequotas"),
    "LimitRange": ("api/v1", "limitranges"),
    "Job": ("apis/batch/v1", "jobs"),
    "Deployment": ("apis/apps/v1", "deployments"),
    "StatefulSet": ("apis/apps/v1", "statefulsets"),
    "DaemonSet": ("apis/apps/v1", "daemonsets"),
    "PodDisruptionBudget": ("apis/policy/v1", "poddisruptionbudgets"),
    "NetworkPolicy": ("apis/networking.k8s.io/v1", "networkpolicies"),
    "Lease": ("apis/coordination.k8s.io/v1", "leases"),
    "Role": ("apis/rbac.authorization.k8s.io/v1", "roles"),
    "RoleBinding": ("apis/rbac.authorization.k8s.io/v1", "rolebindings"),
    "ClusterRole": ("apis/rbac.authorization.k8s.io/v1", "clusterroles"),
    "ClusterRoleBinding": ("apis/rbac.authorization.k8s.io/v1", "clusterrolebindings"),
    "CustomResourceDefinition": ("apis/apiextensions.k8s.io/v1", "customresourcedefinitions"),
    "ValidatingAdmissionPolicy": ("apis/admissionregistration.k8s.io/v1", "validatingadmissionpolicies"),
    "ValidatingAdmissionPolicyBinding": (
        "apis/admissionregistration.k8s.io/v1",
        "validatingadmissionpolicybindings",
    ),
    "DistillationJob": ("apis/dram.dev/v1alpha1", "distillationjobs"),
    "EdgeRollout": ("apis/dram.dev/v1alpha1", "edgerollouts"),
    "TokenReview": ("apis/authentication.k8s.io/v1", "tokenreviews"),
    "SubjectAccessReview": ("apis/authorization.k8s.io/v1", "subjectaccessreviews"),
}


class ApiError(Exception):
    """The API server refused a request."""

    def __init__(self, status: int, body: str) -> None:
        super().__init__(f"{status}: {body}")
        self.status = status
        try:
            self.message = str(json.loads(body).get("message", body))
        except ValueError:
            self.message = body


def path_of(kind: str, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
    """The request path of a kind, e.g. `/apis/batch/v1/namespaces/default/jobs/train-1`."""
    group, plural = GROUPS[kind]
    parts = ["", group, *(["namespaces", namespace] if namespace else []), plural]
    parts += [part for part in (name, subresource) if part]
    return "/".join(parts)


class Api:
    """Requests to one API server as one user."""

    def __init__(self, kubeconfig: Path) -> None:
        settings = client.Configuration()
        config.load_kube_config(config_file=str(kubeconfig), client_configuration=settings)  # type: ignore[no-untyped-call]
        self._client = client.ApiClient(settings)

    def request(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        query: dict[str, str] | None = None,
        content: str | None = None,
        accept: str = "application/json, */*",
    ) -> str:
        """Make any request and give the answer's text; raises ApiError."""
        headers = {"Accept": accept, "Content-Type": content or "application/json"}
        request = self._client.param_serialize(
            method,
            path,
            query_params=list((query or {}).items()),
            header_params=headers,
            body=body,
            auth_settings=["BearerToken"],
        )
        answer = self._client.call_api(*request, _request_timeout=60)
        text = bytes(answer.read() or b"").decode(errors="replace")  # type: ignore[no-untyped-call]
        if answer.status >= 300:
            raise ApiError(answer.status, text)
        return text

    def get(self, kind: str, name: str, namespace: str | None = None) -> Object:
        """Read an object."""
        return self._object("GET", path_of(kind, namespace, name))

    def find(self, kind: str, name: str, namespace: str | None = None) -> Object | None:
        """Read an object; None when there is none."""
        try:
            return self.get(kind, name, namespace)
        except ApiError as error:
            if error.status == 404:
                return None
            raise

    def list(self, kind: str, namespace: str | None = None, *, labels: str = "", fields: str = "") -> list[Object]:
        """Objects of a kind by label and field selector, in all namespaces unless one is given."""
        query = {name: text for name, text in (("labelSelector", labels), ("fieldSelector", fields)) if text}
        items = self._object("GET", path_of(kind, namespace), query=query)["items"]
        return [{"kind": kind, **item} for item in items]

    def create(self, obj: Object) -> Object:
        """Create an object."""
        return self._object("POST", path_of(obj["kind"], obj["metadata"].get("namespace")), obj)

    def create_in(self, kind: str, name: str, namespace: str, subresource: str, body: Object) -> Object:
        """Create a subresource: a service account's `token`, a pod's `eviction`."""
        return self._object("POST", path_of(kind, namespace, name, subresource), body)

    def apply(self, obj: Object, manager: str = "dram-test", *, dry_run: bool = False) -> Object:
        """Server-side apply, as `kubectl apply --server-side --force-conflicts`; a dry run asks everybody and writes nothing."""
        metadata = obj["metadata"]
        path = path_of(obj["kind"], metadata.get("namespace"), metadata["name"])
        query = {"fieldManager": manager, "force": "true", **({"dryRun": "All"} if dry_run else {})}
        return self._object("PATCH", path, obj, query=query, content=PATCH_TYPES["apply"])

    def patch(
        self, kind: str, name: str, namespace: str | None, change: Object, *, subresource: str | None = None
    ) -> Object:
        """A merge patch of an object or its subresource."""
        return self._object("PATCH", path_of(kind, namespace, name, subresource), change, content=PATCH_TYPES["merge"])

    def delete(self, kind: str, name: str, namespace: str | None = None, *, propagation: str = "Background") -> None:
        """Delete an object; one that is gone already is no error."""
        try:
            self._object("DELETE", path_of(kind, namespace, name), {"propagationPolicy": propagation})
        except ApiError as error:
            if error.status != 404:
                raise

    def logs(self, pod: str, namespace: str, **query: str) -> str:
        """What a pod wrote."""
        return self.request("GET", path_of("Pod", namespace, pod, "log"), query=query)

    def try_logs(self, pod: str, namespace: str, **query: str) -> str:
        """What a pod wrote, or why that cannot be had."""
        try:
            return self.logs(pod, namespace, **query)
        except ApiError as error:
            return str(error)

    def kill_pod(self, name: str, namespace: str) -> None:
        """Delete a pod without grace: its processes get SIGKILL at once."""
        try:
            self._object("DELETE", path_of("Pod", namespace, name), {"gracePeriodSeconds": 0})
        except ApiError as error:
            if error.status != 404:
                raise

    def _object(self, method: str, path: str, body: Any = None, **how: Any) -> Object:
        answer: Object = json.loads(self.request(method, path, body, **how))
        return answer


def manifests(text: str) -> list[Object]:
    """The objects of a YAML text; libyaml's loader, since a CRD takes seconds with the other."""
    return [obj for obj in yaml.load_all(text, Loader=yaml.CSafeLoader) if obj]


def wait_until(
    look: Callable[[], T | None], what: str, *, patience_seconds: float = 120, explain: Callable[[], str] | None = None
) -> T:
    """Look again until there is something; raises TimeoutError that says what was awaited and what was seen instead."""
    deadline = time.monotonic() + patience_seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {patience_seconds:g} s for {what}\n{explain() if explain else ''}")
        time.sleep(0.1)
