"""A status fits into 64 KiB, whatever the fleet's size and however much goes wrong."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dram_operator.api.rollout_status import (
    LARGEST_QUERY_SHOWN,
    EdgeRolloutStatus,
    MetricStatus,
    RollbackStatus,
    clipped,
)
from dram_operator.api.schema import Schema, structural
from tests.operator.api.rollout_statuses import A_FULL_STATUS, BAD, NOW

LIMIT_BYTES = 64 * 1024
LONGEST_KEY = 63


def most_bytes(schema: Schema) -> int:
    """The longest JSON that a value of this schema can have."""
    properties, every, items = (schema.get(key) for key in ("properties", "additionalProperties", "items"))
    if properties is not None:
        return 2 + sum(len(key) + 4 + most_bytes(inner) for key, inner in properties.items())
    if every is not None:
        return 2 + int(schema["maxProperties"]) * (LONGEST_KEY + 4 + most_bytes(every))
    if items is not None:
        return 2 + int(schema["maxItems"]) * (1 + most_bytes(items))
    return 2 + max(map(len, schema["enum"])) if "enum" in schema else _most_bytes_of_value(schema)


def _most_bytes_of_value(schema: Schema) -> int:
    match schema["type"]:
        case "string":
            # Every text is cut by bytes, or of plain ASCII by its pattern.
            return 2 + int(schema["maxLength"])
        case "integer":
            return len(str(schema["maximum"]))
        case "number":
            return len("-1.7976931348623157e+308")
        case kind:
            assert kind == "boolean"
            return len("false")


def size_of(status: EdgeRolloutStatus) -> int:
    value = status.model_dump(mode="json", by_alias=True, exclude_none=True)
    return len(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())


def test_no_status_that_the_api_server_takes_is_larger() -> None:
    assert most_bytes(structural(EdgeRolloutStatus)) <= LIMIT_BYTES


def test_the_bound_counts_every_byte() -> None:
    assert size_of(A_FULL_STATUS) < most_bytes(structural(EdgeRolloutStatus))
    named = A_FULL_STATUS.reach.model_copy(update={"named": tuple(f"{index:016x}" for index in range(300))})
    grown = size_of(A_FULL_STATUS.model_copy(update={"reach": named})) - size_of(A_FULL_STATUS)
    assert grown == 299 * 19


def stored(text: str) -> int:
    """Bytes of a text as Go's encoding/json writes it, without its quotes."""
    escaped = json.dumps(text, ensure_ascii=False)
    for sign in "<>&":
        escaped = escaped.replace(sign, f"\\u{ord(sign):04x}")
    return len(escaped.encode()) - 2


texts = st.text(max_size=700) | st.text('"\\\n\x01<>&ü漢😀', min_size=300, max_size=1200)


@given(texts, st.integers(1, 300))
def test_a_text_is_cut_to_bytes_and_only_where_it_is_too_long(text: str, size_bytes: int) -> None:
    cut = clipped(text, size_bytes)
    assert text.startswith(cut)
    assert stored(cut) <= size_bytes
    if stored(text) <= size_bytes:
        assert cut == text


@given(texts)
def test_what_is_told_is_cut_where_it_is_written_down(text: str) -> None:
    metric = MetricStatus(name="own", verdict="Error", message=text, query=text, looked_at=NOW)
    rollback = RollbackStatus(digest=BAD, reason=text, message=text, started_at=NOW)
    told: list[tuple[Any, int]] = [
        (metric.message, 256),
        (metric.query, LARGEST_QUERY_SHOWN),
        (rollback.reason, 64),
        (rollback.message, 256),
    ]
    for value, size_bytes in told:
        assert stored(value) <= size_bytes
    assert metric.query == (text if stored(text) <= LARGEST_QUERY_SHOWN else "")


@pytest.mark.parametrize("field", ["analysis", "history", "commands", "quarantined"])
def test_no_list_grows_beyond_its_bound(field: str) -> None:
    value = A_FULL_STATUS.model_dump(mode="json", by_alias=True)
    many = [value[field][0] | ({"name": str(index)} if field == "analysis" else {}) for index in range(50)]
    with pytest.raises(ValueError, match="at most"):
        EdgeRolloutStatus.model_validate(value | {field: many})
