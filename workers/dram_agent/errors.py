"""Every way an update can fail on the device. None of them stops serving.

AgentError
├── Refused                what came is not what was signed; `cause` is counted
├── Unreachable            nothing came: polled again later, `retry_after` where the server said when
├── DiskFull               no space for the idle slot; what is served is not touched
└── NotServing             the model process did not come up, or gave up
"""

from enum import StrEnum


class Cause(StrEnum):
    """Why something was refused; the values of the label `cause` of `dram_device_refused_metadata_total`."""

    UNSIGNED = "unsigned"
    """Not signed by enough of the keys that count."""
    EXPIRED = "expired"
    """Its time is over: an attacker may be holding back what is newer."""
    REPLAYED = "replayed"
    """Older than what this device has seen."""
    MISMATCH = "mismatch"
    """Not the bytes that signed metadata names: mixed from several states, cut short or changed."""
    OVERSIZED = "oversized"
    """More bytes than signed metadata or a limit allows; an endless answer is cut off there."""
    SLOW = "slow"
    """It trickled for longer than a file may take."""
    MALFORMED = "malformed"
    """Not metadata, or not a document that this agent reads."""
    TAMPERED = "tampered"
    """A file of the artifact is not the one that was signed."""


class AgentError(Exception):
    """The update cannot go on now."""


class Refused(AgentError):
    """Not what was signed."""

    def __init__(self, cause: Cause, message: str) -> None:
        super().__init__(message)
        self.cause = cause


class Unreachable(AgentError):
    """The repository did not answer, or asks for patience. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class DiskFull(AgentError):
    """No space is left for the artifact."""


class NotServing(AgentError):
    """The model's process is not up."""
