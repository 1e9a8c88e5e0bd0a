"""Channel documents for tests: `a_document(cohorts=(Cohort(cutoff=...),))`."""

from typing import Any

from dram_agent.document import Artifact, ChannelDocument, Release, Requirements

OLD, NEW = "aa" * 32, "bb" * 32
HALF, ALL = "7fffffffffffffff", "ffffffffffffffff"


def a_release(digest: str = NEW, *classes: str | None) -> Release:
    """A release with one build a class, by default one for all devices."""
    return Release(digest=digest, artifacts=tuple(an_artifact(digest, one) for one in classes or (None,)))


def an_artifact(digest: str = NEW, device_class: str | None = None) -> Artifact:
    """A build that any agent can run."""
    path = f"artifacts/{digest}/manifest.json"
    return Artifact(
        device_class=device_class,
        path=path,
        requires=Requirements(format="gguf", memory_bytes=1 << 20, agent_version="0.1"),
    )


def a_document(**fields: Any) -> ChannelDocument:
    """A channel that rolls NEW out over OLD, with nobody in a cohort yet."""
    usual: dict[str, Any] = {
        "channel": "tv/support-bot",
        "attempt": 1,
        "salt": "6472616d",
        "stable": a_release(OLD),
        "candidate": a_release(NEW),
        "poll_seconds": 300,
        "active_poll_seconds": 60,
        "backoff_seconds": 3600,
        "candidate_lease_seconds": 86_400,
    }
    return ChannelDocument(**usual | fields)
