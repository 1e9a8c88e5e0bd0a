"""Why a push is not taken."""

from enum import StrEnum


class Reason(StrEnum):
    """The values of the label `cause` of `dram_gateway_refused_total`."""

    UNSIGNED = "unsigned"
    """No token, or none that a key that counts has signed."""
    EXPIRED = "expired"
    """The token's time is over: the owner issues another one."""
    REVOKED = "revoked"
    """The owner took the token back, or the device out of service."""
    CERTIFICATE = "certificate"
    """The client certificate is another device's."""
    CLONED = "cloned"
    """Two speak under one id: nobody knows which one is the device."""
    REPLAYED = "replayed"
    """A push that was there before, or an older one."""
    TOO_OFTEN = "too-often"
    """More pushes than a device may send."""
    OVERSIZED = "oversized"
    """A longer body than a device may send."""
    SLOW = "slow"
    """The body trickled."""
    MALFORMED = "malformed"
    """Not a push of an agent."""
    TOO_MANY_SERIES = "too-many-series"
    """More series than a device has."""
    IMPLAUSIBLE = "implausible"
    """More requests than one device can answer in the time."""


STATUS = {
    Reason.UNSIGNED: 401,
    Reason.EXPIRED: 401,
    Reason.REVOKED: 403,
    Reason.CERTIFICATE: 403,
    Reason.CLONED: 409,
    Reason.REPLAYED: 409,
    Reason.TOO_OFTEN: 429,
    Reason.OVERSIZED: 413,
    Reason.SLOW: 408,
    Reason.MALFORMED: 400,
    Reason.TOO_MANY_SERIES: 422,
    Reason.IMPLAUSIBLE: 422,
}
"""What a device is answered (RFC 9110, 15.5)."""


class Refused(Exception):
    """A push is not taken."""

    def __init__(self, reason: Reason, retry_after: float | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.retry_after = retry_after
        """Seconds."""
