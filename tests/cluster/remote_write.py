"""Writes samples to a Prometheus of any date, as another Prometheus would (https://prometheus.io/docs/specs/prw/remote_write_spec/)."""

import struct
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from http.client import HTTPConnection

STALE = struct.unpack("<d", struct.pack("<Q", 0x7FF0000000000002))[0]
"""The value that ends a series."""
LITERAL_BYTES = 1 << 16

Point = tuple[Mapping[str, str], float]
"""A series' labels, its name as `__name__`, and its value."""


def write(host: str, at: float, points: Iterable[Point]) -> None:
    """One sample for each series, all of one moment."""
    body = b"".join(_field(1, _series(labels, value, at)) for labels, value in points)
    headers = {
        "Content-Type": "application/x-protobuf",
        "Content-Encoding": "snappy",
        "X-Prometheus-Remote-Write-Version": "0.1.0",
    }
    connection = HTTPConnection(host, timeout=30)
    try:
        connection.request("POST", "/api/v1/write", b"".join(_snappy(body)), headers)
        response = connection.getresponse()
        told = response.read()
        assert response.status // 100 == 2, told
    finally:
        connection.close()


def _series(labels: Mapping[str, str], value: float, at: float) -> bytes:
    sample = b"\x09" + struct.pack("<d", value) + b"\x10" + _varint(round(at * 1000))
    return _named(tuple(sorted(labels.items()))) + _field(2, sample)


@lru_cache(maxsize=1 << 18)
def _named(labels: tuple[tuple[str, str], ...]) -> bytes:
    return b"".join(_field(1, _field(1, name.encode()) + _field(2, text.encode())) for name, text in labels)


def _field(number: int, body: bytes) -> bytes:
    return bytes([number << 3 | 2]) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 0x7F:
        found.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*found, value])


def _snappy(body: bytes) -> Iterator[bytes]:
    """The format without its compression: nothing but literals."""
    yield _varint(len(body))
    for start in range(0, len(body), LITERAL_BYTES):
        part = body[start : start + LITERAL_BYTES]
        yield b"\xf4" + struct.pack("<H", len(part) - 1) + part
