"""The repository's bucket, read by plain HTTP as a fleet reads it: 10,000 and 100,000 devices, every five minutes.

A poll without news is one conditional request. After a commit each device asks for more: what exactly, is taken from the real agent.
"""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import urllib3

from dram_operator.adapters.releases.bucket import BucketSettings
from dram_operator.adapters.releases.keys import KeyFolder
from tests.agent.box import Box, Fleet
from tests.agent.memory import MemoryBucket
from tests.agent.site import Site
from tests.bench.results import Row
from tests.cluster.s3 import S3Server
from tests.operator.adapters.releases.installation import Installation

POLL_SECONDS = 300
SECONDS = 30.0
FLEETS = {"10k": 10_000, "100k": 100_000}
BUCKET = "public"
TIMESTAMP = "metadata/timestamp.json"
LOWER = "lower is better"

Request = tuple[str, str]
"""A path, and the header lines that go with it."""


@dataclass(frozen=True)
class Figures:
    """What one load showed."""

    p99_seconds: float
    late_p99_seconds: float
    cpu_ratio: float
    """Cores that the server took."""
    poll_bytes: float
    """Both ways, headers included."""
    polls: int
    failed: int

    @property
    def told(self) -> str:
        """How the figures came about."""
        late = f"begun at most {self.late_p99_seconds * 1000:.0f} ms late (p99)"
        return f"{self.polls} polls, {self.failed} failed, {late}"


@dataclass(frozen=True)
class Served:
    """A server with the repository's files."""

    url: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Of the server and its children."""
        family = [self.process, *self.process.children(recursive=True)]
        return float(sum(one.cpu_times().user + one.cpu_times().system for one in family))


def rows() -> list[Row]:
    """Polls without news at both sizes, and the polls right after a commit at the large one."""
    with tempfile.TemporaryDirectory() as name:
        files, refresh = repository(Path(name))
    with served(files) as server:
        quiet = {size: load(server, [unchanged(server)], devices) for size, devices in FLEETS.items()}
        news = load(server, [below(server, one) for one in refresh], FLEETS["100k"])
    return [*(row for size, figures in quiet.items() for row in steady(size, figures)), *after_commit(news, refresh)]


def steady(size: str, figures: Figures) -> list[Row]:
    """The rows of polls without news."""
    rate = f"{LOWER}; {FLEETS[size] / POLL_SECONDS:.0f} polls/s for {SECONDS:.0f} s, a connection each"
    return [
        Row(f"fleet.poll_p99_seconds.{size}", figures.p99_seconds, "s", note=f"{rate}; {figures.told}"),
        Row(f"fleet.server_cpu_ratio.{size}", figures.cpu_ratio, "cores", note=rate),
        Row(f"fleet.poll_bytes.{size}", figures.poll_bytes, "B", note=f"{LOWER}; both ways, with headers"),
    ]


def after_commit(news: Figures, refresh: list[Request]) -> list[Row]:
    """The rows of a fleet that learns of a commit."""
    note = f"{LOWER}; 333 polls/s of {len(refresh)} requests each; {news.told}"
    return [
        Row("fleet.refresh_p99_seconds.100k", news.p99_seconds, "s", note=note),
        Row("fleet.refresh_cpu_ratio.100k", news.cpu_ratio, "cores", note=note),
        Row("fleet.refresh_bytes.100k", news.poll_bytes, "B", note=f"{LOWER}; both ways, with headers"),
    ]


def repository(folder: Path) -> tuple[dict[str, bytes], list[Request]]:
    """A signed repository's files, and what a device that knew the commit before asks for."""
    installation = Installation(BucketSettings("s3://memory"), KeyFolder(folder / "keys"), bucket=MemoryBucket({}))
    installation.clock.now = datetime.now(UTC)
    installation.ceremony().init(root_keys=3, threshold=2)
    with Site() as site:
        fleet = Fleet(installation, site)
        release = fleet.release(model=b"model")
        fleet.publish(release)
        box = Box(fleet, folder / "device")
        box.boot()
        box.updater.cycle()
        fleet.publish(release, poll_seconds=299)
        site.paths()
        box.updater.cycle()
        return dict(site.files), [(one.path, condition(one.headers)) for one in site.seen]


def condition(headers: Mapping[str, str]) -> str:
    """A request's conditional header as a line."""
    found = headers.get("If-None-Match")
    return f"If-None-Match: {found}\r\n" if found else ""


def unchanged(server: Served) -> Request:
    """The poll of a device that is up to date."""
    answer = urllib3.request("GET", f"{server.url}/{TIMESTAMP}")
    return below(server, (TIMESTAMP, f"If-None-Match: {answer.headers['ETag']}\r\n"))


def below(server: Served, request: Request) -> Request:
    """A request of a path in the repository, as the server has it."""
    path, headers = request
    return f"{urlsplit(server.url).path.strip('/')}/{path}", headers


def load(server: Served, requests: list[Request], devices: int) -> Figures:
    """Poll as so many devices do."""
    url = urlsplit(server.url)
    plan = {"host": url.hostname, "port": url.port, "per_second": devices / POLL_SECONDS, "seconds": SECONDS}
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump({**plan, "requests": requests}, file)
        file.flush()
        before = server.cpu_seconds()
        command = [sys.executable, str(Path(__file__).with_name("_polls.py")), file.name]
        told = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
        used = server.cpu_seconds() - before
    polls = len(told["seconds"]) + told["failed"]
    return Figures(
        percentile(told["seconds"], 0.99),
        percentile(told["late"], 0.99),
        used / SECONDS,
        (told["bytes_in"] + told["bytes_out"]) / polls,
        polls,
        told["failed"],
    )


def percentile(values: list[float], share: float) -> float:
    """The smallest value that `share` of them do not exceed."""
    return sorted(values)[ceil(share * len(values)) - 1]


@contextmanager
def served(files: dict[str, bytes]) -> Iterator[Served]:
    """The files in a bucket that anybody may read by plain HTTP, with ETag and 304."""
    with S3Server(public=BUCKET) as server:
        server.bucket(BUCKET)
        for path, body in files.items():
            server.client().put_object(Bucket=BUCKET, Key=path, Body=body)
        pid = json.loads((server.folder / "weed.pid").read_text())["pid"]
        yield Served(f"{server.endpoint}/{BUCKET}", psutil.Process(pid))
