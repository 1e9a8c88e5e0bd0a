"""The Kubernetes resources that the operator and the command line touch, and where the API server keeps them."""

from dataclasses import dataclass
from typing import Any

Object = dict[str, Any]
"""An API object as plain data."""


@dataclass(frozen=True)
class Resource:
    """A namespaced (or, for reviews, cluster-wide) resource."""

    group: str
    version: str
    plural: str
    kind: str

    def path(self, namespace: str | None = None, name: str | None = None, subresource: str | None = None) -> str:
        """URL path of the collection, one object or its subresource."""
        root = f"/apis/{self.group}/{self.version}" if self.group else f"/api/{self.version}"
        parts = [root, *(["namespaces", namespace] if namespace else []), self.plural]
        return "/".join([*parts, *(part for part in (name, subresource) if part)])


DISTILLATION_JOBS = Resource("dram.dev", "v1alpha1", "distillationjobs", "DistillationJob")
EDGE_ROLLOUTS = Resource("dram.dev", "v1alpha1", "edgerollouts", "EdgeRollout")
JOBS = Resource("batch", "v1", "jobs", "Job")
PODS = Resource("", "v1", "pods", "Pod")
SERVICES = Resource("", "v1", "services", "Service")
EVENTS = Resource("", "v1", "events", "Event")
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
DEPLOYMENTS = Resource("apps", "v1", "deployments", "Deployment")
CRDS = Resource("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
SELF_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview")
OWN_ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview")
ACCESS_REVIEWS = Resource("authorization.k8s.io", "v1", "subjectaccessreviews", "SubjectAccessReview")
TOKEN_REVIEWS = Resource("authentication.k8s.io", "v1", "tokenreviews", "TokenReview")

BY_KIND = {resource.kind: resource for resource in (DISTILLATION_JOBS, EDGE_ROLLOUTS, JOBS, PODS, SERVICES)}
