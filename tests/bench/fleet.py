"""The repository behind a plain web server, polled as a fleet polls it: 10,000 and 100,000 devices, every five minutes.

A poll without news is one conditional request. After a commit each device asks for more: how much is taken from what the real
agent asks for. Beside the plain server stands the S3 server itself, which devices may read as well.
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
from tests.cluster.api import wait_until
from tests.cluster.processes import free_ports
from tests.cluster.s3 import S3Server
from tests.operator.adapters.releases.installation import Installation

POLL_SECONDS = 300
SECONDS = 30.0
FLEETS = {"10k": 10_000, "100k": 100_000}
BUCKET = "public"
TIMESTAMP = "metadata/timestamp.json"
PEER = "from the S3 server"
LOWER = "lower is better"

Request = tuple[str, str]
"""A path, and the header lines that go with it."""


@dataclass(frozen=True)
class Figures:
    """What one load showed."""

    p99_seconds: float
    late_p99_seconds: float
    cpu_ratio: float
    """Share of a core that the server took."""
    poll_bytes: float
    """Both ways, headers included."""
    polls: int
    failed: int


@dataclass(frozen=True)
class Served:
    """A server with the repository's files."""

    url: str
    process: psutil.Process

    def cpu_seconds(self) -> float:
        """Of the server and its children."""
        family = [self.process, *self.process.children(recursive=True)]
        return sum(one.cpu_times().user + one.cpu_times().system for one in family)


def rows() -> list[Row]:
    """Polls without news at both sizes, and the polls right after a commit at the large one."""
    with tempfile.TemporaryDirectory() as name:
        files, refresh = repository(Path(name))
        with plain_server(Path(name) / "site", files) as plain:
            quiet = {size: load(plain, [unchanged(plain)], devices) for size, devices in FLEETS.items()}
            news = load(plain, refresh, FLEETS["100k"])
        with s3_server(files) as peer:
            beside = {size: load(peer, [unchanged(peer)], devices) for size, devices in FLEETS.items()}
    return [*(row for size in FLEETS for row in steady(size, quiet[size], beside[size])), *after_commit(news, refresh)]


def steady(size: str, ours: Figures, peer: Figures) -> list[Row]:
    """The rows of polls without news."""
    rate = f"{FLEETS[size] / POLL_SECONDS:.0f} polls/s for {SECONDS:.0f} s, a connection each"
    note = f"{LOWER}; {rate}; {ours.polls} polls, {ours.failed} failed, begun at most {ours.late_p99_seconds * 1000:.0f} ms late (p99)"
    return [
        Row(f"fleet.poll_p99_seconds.{size}", ours.p99_seconds, "s", PEER, peer.p99_seconds, note),
        Row(f"fleet.server_cpu_ratio.{size}", ours.cpu_ratio, "cores", PEER, peer.cpu_ratio, f"{LOWER}; {rate}"),
        Row(
            f"fleet.poll_bytes.{size}", ours.poll_bytes, "B", PEER, peer.poll_bytes, f"{LOWER}; both ways, with headers"
        ),
    ]


def after_commit(news: Figures, refresh: list[Request]) -> list[Row]:
    """The rows of a fleet that learns of a commit."""
    note = f"{LOWER}; 333 polls/s of {len(refresh)} requests each; {news.polls} polls, {news.failed} failed"
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
    return f"{urlsplit(server.url).path.strip('/')}/{TIMESTAMP}".lstrip(
        "/"
    ), f"If-None-Match: {answer.headers['ETag']}\r\n"


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
def plain_server(folder: Path, files: dict[str, bytes]) -> Iterator[Served]:
    """The files behind aiohttp's static handler, in a process of its own."""
    for path, body in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(body)
    (port,) = free_ports(1)
    child = subprocess.Popen([sys.executable, str(Path(__file__).with_name("_site.py")), str(port), str(folder)])
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until(lambda: answers(f"{url}/{TIMESTAMP}"), "the plain server")
        yield Served(url, psutil.Process(child.pid))
    finally:
        child.terminate()
        child.wait(30)


@contextmanager
def s3_server(files: dict[str, bytes]) -> Iterator[Served]:
    """The same files in a bucket that anybody may read."""
    with S3Server(public=BUCKET) as server:
        server.bucket(BUCKET)
        for path, body in files.items():
            server.client().put_object(Bucket=BUCKET, Key=path, Body=body)
        pid = json.loads((server.folder / "weed.pid").read_text())["pid"]
        yield Served(f"{server.endpoint}/{BUCKET}", psutil.Process(pid))


def answers(url: str) -> bool:
    """Whether a server gives the file by now."""
    try:
        return urllib3.request("GET", url, retries=False, timeout=2).status == 200
    except urllib3.exceptions.HTTPError:
        return False
