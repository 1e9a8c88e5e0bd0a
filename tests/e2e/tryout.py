"""The chart with its servers for trying out: on a cluster where nothing else is."""

from base64 import b64decode
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import boto3
from botocore.config import Config
from mypy_boto3_s3 import S3Client

from tests.cluster.api import Api, Object, wait_until
from tests.cluster.forward import forwarded
from tests.e2e import servers
from tests.e2e.cluster import Cluster
from tests.e2e.installation import CHART, RESTRICTED, helm, is_ready, named

PARTS = ("operator", "tryout-s3", "tryout-prometheus")
S3_PORT, PROMETHEUS_PORT = 8333, 9090


@dataclass(frozen=True)
class Tryout:
    """An installation of this name in a namespace of this name, with its servers."""

    cluster: Cluster
    namespace: str
    release: str

    @property
    def api(self) -> Api:
        """Requests as the administrator."""
        return self.cluster.api

    @property
    def name(self) -> str:
        """Of the Secret with the S3 server's credentials; what is of one server has its name behind it."""
        return f"{self.release}-tryout"

    @property
    def repository(self) -> str:
        """Address of the release repository, as devices of this cluster reach it."""
        return f"http://{self.name}-s3.{self.namespace}.svc:{S3_PORT}/releases"

    def install(self, **values: Any) -> None:
        """Install the chart into a namespace for restricted pods alone, and wait until every part is ready."""
        metadata = {"name": self.namespace, "labels": RESTRICTED}
        self.api.apply({"apiVersion": "v1", "kind": "Namespace", "metadata": metadata})
        given = {**self._images(), **values, "tryout": self._servers() | values.get("tryout", {})}
        self._helm("install", self.release, str(CHART), "--values", "-", values=given)
        for part in PARTS:
            wait_until(lambda part=part: self._is_ready(part), f"{part} to be ready", explain=self.explain)  # type: ignore[misc]

    def uninstall(self) -> None:
        """Uninstall the chart, and delete its namespace."""
        self._helm("uninstall", self.release, "--ignore-not-found", "--wait")
        self.api.delete("Namespace", self.namespace)

    def pods(self, part: str) -> list[Object]:
        """The pods of a part."""
        return self.api.list("Pod", self.namespace, labels=f"app.kubernetes.io/component={part}")

    @contextmanager
    def store(self) -> Iterator[S3Client]:
        """The S3 server, as the owner of its buckets."""
        with forwarded(self.cluster.kubeconfig, self.namespace, f"{self.name}-s3", S3_PORT) as url:
            yield self._client(url)

    @contextmanager
    def prometheus(self) -> Iterator[str]:
        """The address of the metrics server from this machine."""
        service = f"{self.name}-prometheus"
        with forwarded(self.cluster.kubeconfig, self.namespace, service, PROMETHEUS_PORT) as url:
            yield url

    def explain(self) -> str:
        """What the pods of every part are at."""
        return "\n".join(f"{pod['metadata']['name']}: {pod['status']}" for part in PARTS for pod in self.pods(part))

    def _images(self) -> dict[str, Any]:
        cluster = self.cluster
        images = {"image": named(cluster.operator_image), "worker": {"image": named(cluster.worker_image)}}
        return {**images, "agent": {"image": named(cluster.agent_image)}}

    def _servers(self) -> dict[str, Any]:
        """Those of the chart's own values where there is a registry, as on a cluster of the user's."""
        node = self.cluster.node
        images = servers.images(node) if node else {}
        return {"enabled": True, **{name: {"image": named(image)} for name, image in images.items()}}

    def _is_ready(self, part: str) -> bool:
        pods = self.pods(part)
        return bool(pods) and all(map(is_ready, pods))

    def _helm(self, *arguments: str, values: dict[str, Any] | None = None) -> None:
        helm(self.cluster, *arguments, "--namespace", self.namespace, values=values)

    def _client(self, url: str) -> S3Client:
        found = self.api.get("Secret", self.name, self.namespace)["data"]
        key, secret = (b64decode(found[name]).decode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"))
        return boto3.client(
            "s3",
            endpoint_url=url,
            region_name="us-east-1",
            aws_access_key_id=key,
            aws_secret_access_key=secret,
            config=Config(s3={"addressing_style": "path"}),
        )
