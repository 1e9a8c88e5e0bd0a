"""A real Prometheus over a history that the test writes, so that nothing has to be waited for; or over what it scrapes."""

import json
import shutil
import subprocess
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.cluster.binaries import binary
from tests.cluster.pki import Authority
from tests.cluster.processes import Processes, free_ports, fresh_folder

USER, PASSWORD = "dram", "test"
BCRYPT = "$2b$12$hNf2lSsxfm0.i4a.1kVpSOVyBCfIB51VRjgBUyv6kdnyTlgWj81Ay"
"""Of PASSWORD: the example in the documentation of Prometheus's web configuration."""


class PrometheusServer:
    """`with PrometheusServer(openmetrics) as server:` serves `server.url`; with `guarded` over TLS and basic authentication.

    `config` is Prometheus' own, for one that scrapes; one that `receives` takes what is pushed to it (remote write, OTLP).
    """

    def __init__(
        self,
        history: str = "",
        *,
        guarded: bool = False,
        config: dict[str, Any] | None = None,
        address: str = "127.0.0.1",
        receives: bool = False,
    ) -> None:
        self._history = history
        self._guarded = guarded
        self._config = config or {}
        self._address = address
        self._receives = receives
        self._port = free_ports(1, address)[0]

    def __enter__(self) -> Self:
        self.folder = fresh_folder("prom")
        self.processes = Processes(self.folder)
        try:
            self._write()
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
    def url(self) -> str:
        """Where it is."""
        return f"{'https' if self._guarded else 'http'}://{self._address}:{self._port}"

    @property
    def ca_file(self) -> Path:
        """The authority that signed its certificate."""
        return self.folder / "web-ca.crt"

    def start(self) -> None:
        """Start the server, again after an outage."""
        guard = ["--web.config.file=web.json"] if self._guarded else []
        receivers = ["--web.enable-remote-write-receiver", "--web.enable-otlp-receiver"] if self._receives else []
        command = [
            *(str(binary("prometheus")), "--config.file=prometheus.json", "--storage.tsdb.path=data"),
            *(
                f"--web.listen-address={self._address}:{self._port}",
                "--storage.tsdb.retention.time=100y",
                *guard,
                *receivers,
            ),
        ]
        self.processes.start("prometheus", command)
        self.processes.wait_ready("prometheus", self._is_ready)

    def stop(self) -> None:
        """End the server; its history stays."""
        self.processes.stop("prometheus")

    def _write(self) -> None:
        (self.folder / "prometheus.json").write_text(json.dumps(self._config))
        if self._history:
            (self.folder / "history.txt").write_text(self._history)
            subprocess.run(
                [str(binary("promtool")), "tsdb", "create-blocks-from", "openmetrics", "history.txt", "data"],
                cwd=self.folder,
                check=True,
                capture_output=True,
            )
        if self._guarded:
            authority = Authority()
            self.ca_file.write_bytes(authority.certificate)
            authority.server("web", ("127.0.0.1", "localhost")).write(self.folder, "web")
            tls = {"cert_file": "web.crt", "key_file": "web.key"}
            web = {"tls_server_config": tls, "basic_auth_users": {USER: BCRYPT}}
            (self.folder / "web.json").write_text(json.dumps(web))

    def _is_ready(self) -> bool:
        if self._guarded:
            return "Server is ready to receive web requests" in self.processes.log("prometheus")
        connection = HTTPConnection(self._address, self._port, timeout=2)
        try:
            connection.request("GET", "/-/ready")
            return connection.getresponse().status == 200
        except (HTTPException, OSError):
            return False
        finally:
            connection.close()

    def _clean(self) -> None:
        self.processes.stop_all()
        shutil.rmtree(self.folder, ignore_errors=True)
