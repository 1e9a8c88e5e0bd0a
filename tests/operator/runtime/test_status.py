"""Status writes: a merge patch that leaves nothing behind."""

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from dram_operator.runtime.status import _merge_patch

NAMES = st.sampled_from(["a", "b", "c"])
VALUES: st.SearchStrategy[Any] = st.recursive(
    st.integers(0, 2) | st.lists(st.integers(0, 2), max_size=2),
    lambda inner: st.dictionaries(NAMES, inner),
    max_leaves=6,
)
OBJECTS = st.dictionaries(NAMES, VALUES)


def merged(target: Any, patch: Any) -> Any:
    """RFC 7396, as the API server does it."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        else:
            result[name] = merged(result.get(name), value)
    return result


@settings(deadline=None)
@given(OBJECTS, OBJECTS)
def test_a_patch_makes_the_new_of_the_old_at_every_depth(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert merged(old, _merge_patch(old, new)) == new


@settings(deadline=None)
@given(OBJECTS)
def test_what_is_equal_needs_no_patch(same: dict[str, Any]) -> None:
    assert _merge_patch(same, same) == {}
