"""What a gateway remembers of each device for an hour: enough to see a second one under its id, and to bound what it does.

A device that is started again begins a session and never goes back to the one before. So when an earlier session speaks
again, two speak. Nobody can tell which of them is the device: both are refused, until only one has spoken for a while.
"""

from collections import OrderedDict
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from dram_agent.gateway.refusal import Reason, Refused
from dram_agent.gateway.settings import Limits

EARLIER_SESSIONS = 16
"""Sessions before the present one that are remembered."""


@dataclass
class _Known:
    session: str
    sequence: int
    seen_at: float
    tokens: float
    """Pushes that may come now."""
    earlier: list[str] = field(default_factory=list)
    conflict_until: float = 0.0
    requests: float | None = None
    """Sum of the request counters at the last push."""
    counted_at: float = 0.0
    variants: dict[int, float] = field(default_factory=dict)
    """When each combination of open labels was last seen, by its hash."""


@dataclass
class Memory:
    """All devices that spoke lately. Times are of a monotonic clock, in seconds."""

    limits: Limits
    _known: OrderedDict[str, _Known] = field(default_factory=OrderedDict)

    def __len__(self) -> int:
        return len(self._known)

    def admit(self, device: str, session: str, sequence: int, now: float) -> None:
        """Take note of a push, before its body is read. Refused."""
        self._forget(now)
        known = self._known.get(device)
        if known is None:
            known = self._known[device] = _Known(session, -1, now, self.limits.burst)
        self._known.move_to_end(device)
        if session != known.session:
            if session in known.earlier or now < known.conflict_until:
                known.conflict_until = now + self.limits.conflict_seconds
            known.earlier = [*(each for each in known.earlier if each != session), known.session][-EARLIER_SESSIONS:]
            known.session, known.sequence = session, -1
        if now < known.conflict_until:
            known.seen_at = now
            raise Refused(Reason.CLONED, known.conflict_until - now)
        self._spend(known, now)
        if sequence <= known.sequence:
            raise Refused(Reason.REPLAYED)
        known.sequence = sequence

    def check(self, device: str, requests: float, variants: AbstractSet[int], now: float) -> None:
        """Bound what the body of an admitted push says. Refused; then it counts for nothing."""
        known, limits = self._known[device], self.limits
        recent = {each: at for each, at in known.variants.items() if now - at < limits.memory_seconds}
        recent.update(dict.fromkeys(variants, now))
        if len(recent) > limits.variants:
            raise Refused(Reason.TOO_MANY_SERIES)
        if known.requests is not None:
            # the intervals of a device are not exact: one more of its shortest is allowed for
            seconds = now - known.counted_at + limits.least_seconds
            if requests - known.requests > limits.requests_per_second * seconds:
                raise Refused(Reason.IMPLAUSIBLE)
        known.variants, known.requests, known.counted_at = recent, requests, now

    def _spend(self, known: _Known, now: float) -> None:
        """A token bucket: one push every `least_seconds`, and a few at once after a silence."""
        limits = self.limits
        tokens = min(limits.burst, known.tokens + (now - known.seen_at) / limits.least_seconds)
        known.tokens, known.seen_at = tokens, now
        if tokens < 1:
            raise Refused(Reason.TOO_OFTEN, (1 - tokens) * limits.least_seconds)
        known.tokens -= 1

    def _forget(self, now: float) -> None:
        while self._known:
            device, known = next(iter(self._known.items()))
            if now - known.seen_at < self.limits.memory_seconds:
                return
            del self._known[device]
