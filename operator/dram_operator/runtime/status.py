"""What a status write consists of."""

from typing import Any

from dram_workers.model import Model


def status_patch(old: Model, new: Model) -> dict[str, Any]:
    """The merge patch (RFC 7396) from one status to the other: null for what went, at every depth."""
    return _merge_patch(*(one.model_dump(mode="json", by_alias=True, exclude_none=True) for one in (old, new)))


def _merge_patch(before: dict[str, Any], after: dict[str, Any]) -> dict[str, Any]:
    gone: dict[str, Any] = {name: None for name in before if name not in after}
    changed = {name: value for name, value in after.items() if name not in before or before[name] != value}
    return gone | {
        name: _merge_patch(before[name], value)
        if isinstance(value, dict) and isinstance(before.get(name), dict)
        else value
        for name, value in changed.items()
    }
