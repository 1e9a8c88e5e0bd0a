"""Timestamps as the Kubernetes API writes them: UTC, whole seconds."""

from datetime import UTC, datetime


def stamp(moment: datetime) -> str:
    """RFC 3339 in UTC, e.g. 2030-01-31T12:00:00Z."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def parse_time(text: str) -> datetime:
    """The moment of an RFC 3339 timestamp."""
    return datetime.fromisoformat(text)
