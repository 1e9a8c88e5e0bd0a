"""A real S3 server: SeaweedFS in one process, with credentials on."""

import json
import shutil
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.request import urlopen

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError
from mypy_boto3_s3 import S3Client

from tests.cluster.pki import Authority
from tests.cluster.processes import Processes, free_ports, fresh_folder

REGION = "us-east-1"
PORTS = [f"{part}.port{kind}" for part in ("s3", "master", "filer", "volume", "admin") for kind in ("", ".grpc")]
HTTPS = "s3.port.https"


@dataclass(frozen=True)
class Credentials:
    """A user of the server."""

    access_key: str
    secret_key: str

    def environment(self) -> dict[str, str]:
        """The variables that the AWS SDK reads; also the keys of a Secret for `spec.storage.secretRef`."""
        return {"AWS_ACCESS_KEY_ID": self.access_key, "AWS_SECRET_ACCESS_KEY": self.secret_key}


OWNER = Credentials("owner", "the-owner-may-do-all")
READER = Credentials("reader", "the-reader-may-only-read")
ACTIONS = {OWNER: ["Admin", "Read", "Write", "List", "Tagging"], READER: ["Read", "List"]}


class S3Server:
    """`with S3Server() as s3:` serves `s3.endpoint`; `stop` and `start` make an outage that keeps the data."""

    owner = OWNER
    reader = READER
    region = REGION

    def __init__(self, address: str = "127.0.0.1", *, tls: bool = False) -> None:
        self.address = address
        self._tls = tls
        self._clients: dict[Credentials, S3Client] = {}
        self._making = threading.Lock()
        self._ports = dict(zip(PORTS, free_ports(len(PORTS), address), strict=True))
        if tls:
            self._ports[HTTPS] = free_ports(1, address)[0]

    def __enter__(self) -> Self:
        self.folder = fresh_folder("s3")
        self.processes = Processes(self.folder)
        (self.folder / "data").mkdir()
        identities = [
            {
                "name": user.access_key,
                "credentials": [{"accessKey": user.access_key, "secretKey": user.secret_key}],
                "actions": actions,
            }
            for user, actions in ACTIONS.items()
        ]
        (self.folder / "s3.json").write_text(json.dumps({"identities": identities}))
        if self._tls:
            authority = Authority()
            self.ca_file.write_bytes(authority.certificate)
            authority.server("s3", (self.address, "localhost")).write(self.folder, "s3")
        try:
            self.start()
        except BaseException:
            self._clean()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._clean()

    @property
    def endpoint(self) -> str:
        """URL of the server."""
        if self._tls:
            return f"https://{self.address}:{self._ports[HTTPS]}"
        return f"http://{self.address}:{self._ports['s3.port']}"

    @property
    def ca_file(self) -> Path:
        """The authority that signed the server's certificate, with `tls`."""
        return self.folder / "s3-ca.crt"

    def start(self) -> None:
        """Start the server, again after an outage."""
        self.processes.start("weed", self._command())
        self.processes.wait_ready("weed", self._is_ready)

    def stop(self) -> None:
        """End the server; the data stays."""
        self.processes.stop("weed")

    def kill(self) -> None:
        """SIGKILL the server, as a crash does; the data stays."""
        self.processes.kill("weed")

    def client(self, user: Credentials = OWNER) -> S3Client:
        """A boto3 client: threads may share one, but not make one at the same time."""
        with self._making:
            if user not in self._clients:
                self._clients[user] = self._make_client(user)
            return self._clients[user]

    def _make_client(self, user: Credentials) -> S3Client:
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            region_name=REGION,
            aws_access_key_id=user.access_key,
            aws_secret_access_key=user.secret_key,
            verify=str(self.ca_file) if self._tls else None,
            config=Config(
                s3={"addressing_style": "path"}, retries={"max_attempts": 1}, connect_timeout=5, read_timeout=30
            ),
        )

    def bucket(self, name: str) -> str:
        """Make a bucket unless it is there; returns its URI."""
        client = self.client()
        if name not in [bucket["Name"] for bucket in client.list_buckets()["Buckets"]]:
            client.create_bucket(Bucket=name)
        return f"s3://{name}"

    def upload(self, bucket: str, key: str, path: Path) -> str:
        """Upload a file, or a folder's files below the key; returns the URI."""
        files = [path] if path.is_file() else [file for file in sorted(path.rglob("*")) if file.is_file()]
        for file in files:
            self.client().upload_file(str(file), bucket, key if file == path else f"{key}/{file.relative_to(path)}")
        return f"s3://{bucket}/{key}"

    def _command(self) -> list[str]:
        weed = shutil.which("weed", path=str(Path(sys.executable).parent)) or "weed"
        tls = ["-s3.cert.file=s3.crt", "-s3.key.file=s3.key"] if self._tls else []
        return [
            *(weed, "mini", "-dir=data", f"-ip={self.address}", f"-ip.bind={self.address}", "-s3.config=s3.json"),
            *("-master.telemetry=false", "-s3.autoCreateBucket=false", "-webdav=false", "-admin.ui=false"),
            *(
                "-s3.port.iceberg=0",
                "-s3.port.lance=0",
                *(f"-{name}={port}" for name, port in self._ports.items()),
                *tls,
            ),
        ]

    def _is_ready(self) -> bool:
        try:
            with socket.create_connection((self.address, self._ports["s3.port"]), timeout=1):
                pass
            self.client().list_buckets()
            return self._has_volumes()
        except (OSError, BotoCoreError, ClientError):
            return False

    def _has_volumes(self) -> bool:
        """Whether the store has told the master which volumes it has: before that, objects cannot be read after a restart."""
        with urlopen(f"http://{self.address}:{self._ports['master.port']}/dir/status", timeout=5) as answer:
            return bool(json.load(answer)["Topology"]["Max"] > 0)

    def _clean(self) -> None:
        self.processes.stop_all()
        shutil.rmtree(self.folder, ignore_errors=True)
