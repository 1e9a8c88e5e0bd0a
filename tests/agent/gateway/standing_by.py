"""A gateway before a real Prometheus, an owner with a key, and devices that push."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp.test_utils import TestServer
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from dram_agent.gateway.app import Gateway
from dram_agent.gateway.refusal import Reason
from dram_agent.gateway.settings import Backend, GatewaySettings, Limits
from dram_agent.identity import Claims, issue, load_key, new_id, new_key
from dram_agent.otlp import CONTENT_TYPE, export
from dram_agent.push import SEQUENCE, SESSION
from dram_agent.standing import Arm, Standing
from dram_agent.telemetry import Identity, Outcome, ServedBy, Telemetry

NOW = 1_700_000_000.0
CHANNEL = "tv/support-bot"
RELEASE = "a" * 64
DAY = 86_400


@dataclass
class Clock:
    """Both of the gateway's clocks."""

    now: float = NOW

    def __call__(self) -> float:
        return self.now


def claims(device: str | None = None, **fields: Any) -> Claims:
    """A device enrolled yesterday, for a month."""
    usual = {"namespace": "tv", "channel": CHANNEL, "device_class": "set-top-box"}
    times = {"issued_at": int(NOW) - DAY, "expires_at": int(NOW) + 30 * DAY}
    return Claims.model_validate({"device": device or new_id(), **usual, **times, **fields})


def telemetry(device: str, **labels: str) -> Telemetry:
    """A device that has served a while."""
    made = Telemetry(Identity(CHANNEL, device, None, "1.2.3", labels))
    made.use(RELEASE)
    made.show_standing(Standing(3, Arm.TREATED, {RELEASE: False}, RELEASE, 600.0))
    made.show_health(60.0, 1234)
    for _ in range(5):
        made.count_request(Outcome.OK, ServedBy.DEVICE, 0.3)
    return made


@dataclass(frozen=True)
class Push:
    """One push as it goes over the wire."""

    token: str | None
    body: Any
    session: str = "1" * 32
    sequence: int = 1
    headers: dict[str, str] = field(default_factory=dict)

    def then(self, **changes: Any) -> "Push":
        """The next one of the same process."""
        return replace(self, **{"sequence": self.sequence + 1, **changes})


@dataclass
class Place:
    """Everything around one gateway."""

    folder: Path
    gateway: Gateway
    clock: Clock
    client: aiohttp.ClientSession
    url: str
    key: Ed25519PrivateKey

    def device(self, device: str | None = None, **fields: Any) -> Push:
        """The first push of an honest device."""
        who = claims(device, **fields)
        body = export(telemetry(who.device), {"service.name": "dram-agent"}, NOW + 99_999, NOW + 99_399)
        return Push(issue(self.key, who), body)

    async def send(self, push: Push) -> int:
        """Push; returns the status."""
        headers = {"Content-Type": CONTENT_TYPE, SESSION: push.session, SEQUENCE: str(push.sequence), **push.headers}
        if push.token is not None:
            headers["Authorization"] = f"Bearer {push.token}"
        async with self.client.post(f"{self.url}/v1/metrics", data=push.body, headers=headers) as answer:
            await answer.read()
            return answer.status

    def pass_time(self, seconds: float = 60.0) -> None:
        self.clock.now += seconds

    def counted(self, name: str = "dram_gateway_refused_total") -> dict[str, float]:
        """What the gateway counted, by cause, zeros left out."""
        return {
            each.labels.get("cause", ""): each.value
            for family in self.gateway.metrics.registry.collect()
            for each in family.samples
            if each.name == name and each.value
        }


@asynccontextmanager
async def gateway(folder: Path, url: str, backend: dict[str, Any] | None = None, **limits: Any) -> AsyncIterator[Place]:
    """A gateway with one issuer and an empty revocation list."""
    new_key(folder / "owner.pem")
    (folder / "revoked.jsonl").touch()
    clock = Clock()
    settings = GatewaySettings(
        issuer_keys=(folder / "owner.pem.pub",),
        revocations=folder / "revoked.jsonl",
        backend=Backend(url=url, **(backend or {})),
        limits=Limits(**{"body_seconds": 0.3, **limits}),
    )
    made = Gateway(settings, clock, clock)
    async with TestServer(made.app()) as server, aiohttp.ClientSession() as client:
        where = str(server.make_url("")).rstrip("/")
        yield Place(folder, made, clock, client, where, load_key(folder / "owner.pem"))


__all__ = ["Clock", "Place", "Push", "Reason", "claims", "gateway", "telemetry"]
