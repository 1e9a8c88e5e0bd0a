"""What faults make of a release's behaviour."""

from collections.abc import Iterable

from dram_agent.fleet.faults import Errors, Fallback, Fault, Hungry, Slow, Wrong
from dram_agent.fleet.scenario import Behaviour


def changed_by(faults: Iterable[Fault], how: Behaviour, age_seconds: float) -> Behaviour:
    """How a release does on a device with these faults, so long after the device has activated it."""
    for fault in faults:
        begun = getattr(fault, "after_seconds", 0) <= age_seconds
        if isinstance(fault, Slow | Errors | Wrong | Hungry | Fallback) and begun:
            how = how.model_copy(update=_change(fault, how))
    return how


def _change(fault: Slow | Errors | Wrong | Hungry | Fallback, how: Behaviour) -> dict[str, float]:
    match fault:
        case Slow():
            return {"latency_seconds": how.latency_seconds * fault.factor}
        case Errors():
            return {"error_ratio": fault.ratio}
        case Wrong():
            return {"golden_ratio": fault.ratio}
        case Hungry():
            return {"memory_bytes": int(how.memory_bytes * fault.factor)}
        case Fallback():
            return {"fallback_ratio": fault.ratio}
