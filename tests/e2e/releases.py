"""The release repository of the cluster's installation: made by the real command line, read as devices read it."""

import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tuf.api.exceptions import DownloadError
from tuf.ngclient import Updater

from dram_agent.document import ChannelDocument
from tests.cluster.api import Object
from tests.cluster.prometheus import PrometheusServer
from tests.cluster.s3 import S3Server

BUCKET = "releases"
KEYS, CREDENTIALS = "dram-keys", "dram-releases"
POLL_SECONDS = 3
"""What devices of the test wait between two polls, so that a rollout takes minutes."""
SCRAPE = "5s"


@dataclass(frozen=True)
class Releases:
    """A repository in the store's public bucket, and its keys."""

    s3: S3Server
    keys: Path
    cache: Path = field(repr=False)

    @property
    def url(self) -> str:
        """Where devices find it."""
        return f"{self.s3.endpoint}/{BUCKET}"

    @property
    def root(self) -> str:
        """The pinned root."""
        return (self.keys / "root.json").read_text()

    def document(self, channel: str) -> ChannelDocument | None:
        """What a device of the channel would be told now, verified by the stock TUF client."""
        for name in ("metadata", "targets"):
            (self.cache / name).mkdir(parents=True, exist_ok=True)
        updater = Updater(
            str(self.cache / "metadata"),
            f"{self.url}/metadata/",
            str(self.cache / "targets"),
            f"{self.url}/targets/",
            bootstrap=self.root.encode(),
        )
        updater.refresh()
        info = updater.get_targetinfo(f"channels/{channel}.json")
        return ChannelDocument.decode(Path(updater.download_target(info)).read_bytes()) if info else None

    def wait_signed(self, channel: str, wanted: str, patience_seconds: float = 120) -> float:
        """Wait until the signed document denies a release; returns when, by the clock of this machine."""
        deadline = time.monotonic() + patience_seconds
        while time.monotonic() < deadline:
            try:
                document = self.document(channel)
            except DownloadError:
                # A commit in between: the next look sees one side of it.
                document = None
            if document is not None and wanted in document.denied:
                return time.time()
            time.sleep(0.2)
        raise TimeoutError(f"{wanted} was not denied in {channel} within {patience_seconds:g} s")

    def secrets(self, namespace: str) -> list[Object]:
        """What the chart's values name."""
        keys = {name: (self.keys / name).read_text() for name in ("operator.pem", "release.pem")}
        return [
            {
                "apiVersion": "v1",
                "kind": "Secret",
                "metadata": {"name": name, "namespace": namespace},
                "stringData": data,
            }
            for name, data in ((KEYS, keys), (CREDENTIALS, self.s3.owner.environment()))
        ]

    def values(self, prometheus: PrometheusServer) -> dict[str, Any]:
        """The chart's values for rollouts."""
        return {
            "releases": {
                "uri": f"s3://{BUCKET}",
                "endpoint": self.s3.endpoint,
                "region": self.s3.region,
                "credentialsSecret": CREDENTIALS,
                "root": self.root,
                "operatorKey": {"secret": KEYS},
                "releaseKey": {"secret": KEYS},
            },
            "prometheus": [{"name": "default", "url": prometheus.url}],
            "delivery": {"pollSeconds": POLL_SECONDS, "activePollSeconds": POLL_SECONDS, "backoffSeconds": 10},
        }


def dram(*arguments: str, credentials: Mapping[str, str] | None = None) -> str:
    """Run `dram`, with the repository's credentials where it needs them."""
    done = subprocess.run(
        [sys.executable, "-m", "dram_operator.cli", *arguments],
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": ":".join(sys.path), **(credentials or {})},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"dram {' '.join(arguments)}: {done.stderr}")
    return done.stdout


def begin(s3: S3Server, folder: Path) -> Releases:
    """Make keys and an empty repository, as the how-to says."""
    made = Releases(s3, folder / "keys", folder / "cache")
    s3.bucket(BUCKET)
    dram(
        *("keys", "init", "--keys", str(made.keys), "--repository", f"s3://{BUCKET}"),
        *("--endpoint", s3.endpoint, "--region", s3.region),
        credentials=s3.owner.environment(),
    )
    return made


@contextmanager
def scraping(kubeconfig: Path, host: str) -> Iterator[PrometheusServer]:
    """A Prometheus that finds the pods of devices, operator and gateway by the API and scrapes them; a node's agent pushes."""
    label = "__meta_kubernetes_pod_label_app_kubernetes_io_"
    found = [
        {
            "source_labels": [f"{label}name", f"{label}component"],
            "regex": "dram-agent;.*|dram;(operator|gateway)",
            "action": "keep",
        },
        {"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": "metrics", "action": "keep"},
        {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "Running", "action": "keep"},
        {"source_labels": ["__meta_kubernetes_pod_name"], "target_label": "pod"},
    ]
    pods = {
        "job_name": "dram",
        "kubernetes_sd_configs": [{"role": "pod", "kubeconfig_file": str(kubeconfig)}],
        "relabel_configs": found,
    }
    config = {"global": {"scrape_interval": SCRAPE, "scrape_timeout": SCRAPE}, "scrape_configs": [pods]}
    with PrometheusServer(config=config, address=host, receives=True) as server:
        yield server
