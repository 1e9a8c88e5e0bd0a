"""TensorBoard event files of a training, in the store beside the student and outside its digest, because they hold times.

An event file is a row of records, each a length, its checksum, a protocol buffer and that one's checksum; the messages
are `Event` and `Summary` of tensorboard/compat/proto. Only scalars are written, so the few fields are packed here.
"""

import struct
import time

from dram_workers.store.objects import ObjectStore

ACCOUNTING = frozenset({"step", "drawn"})
"""Figures of a row that make no curve."""
ROTATE_BYTES = 1 << 20
"""A file is written anew at every checkpoint, so a long training makes several."""

_POLYNOMIAL = 0x82F63B78


def _table() -> tuple[int, ...]:
    entries = []
    for value in range(256):
        entry = value
        for _ in range(8):
            entry = entry >> 1 ^ (_POLYNOMIAL if entry & 1 else 0)
        entries.append(entry)
    return tuple(entries)


_CRC = _table()


def masked_crc32c(data: bytes) -> int:
    """The CRC-32C of `data`, rotated and shifted as TensorFlow's records want it."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc = _CRC[(crc ^ byte) & 0xFF] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def record(message: bytes) -> bytes:
    """A message framed as a record."""
    length = struct.pack("<Q", len(message))
    checks = (struct.pack("<I", masked_crc32c(part)) for part in (length, message))
    return length + next(checks) + message + next(checks)


def scalars_event(step: int, wall_seconds: float, values: dict[str, float]) -> bytes:
    """An `Event` with one `Summary` of scalars."""
    summary = b"".join(
        _field(1, _field(1, tag.encode()) + b"\x15" + struct.pack("<f", value)) for tag, value in values.items()
    )
    return _at(wall_seconds) + b"\x10" + _varint(step) + _field(5, summary)


def start_events(step: int, wall_seconds: float) -> bytes:
    """How a file begins: the version, and that what an earlier file says of later steps is void."""
    version = _at(wall_seconds) + _field(3, b"brain.Event:2")
    session = _at(wall_seconds) + b"\x10" + _varint(step) + _field(7, b"\x08\x01")
    return record(version) + record(session)


class Board:
    """The curves of one attempt."""

    def __init__(self, store: ObjectStore, folder: str, attempt: int, step: int) -> None:
        self._store = store
        self._folder = folder
        self._attempt = attempt
        self._files = 0
        self._kept = 0
        self._body = start_events(step, time.time())

    def add(self, row: dict[str, float]) -> None:
        """Add every figure of a step."""
        values = {f"train/{name}": value for name, value in row.items() if name not in ACCOUNTING}
        self._body += record(scalars_event(int(row["step"]), time.time(), values))

    def save(self) -> None:
        """Upload what is new."""
        if len(self._body) == self._kept:
            return
        name = f"events.out.tfevents.{self._attempt:010d}.{self._files:04d}.dram"
        self._store.put_bytes(f"{self._folder}/{name}", self._body)
        self._kept = len(self._body)
        if self._kept > ROTATE_BYTES:
            self._files, self._kept, self._body = (
                self._files + 1,
                0,
                record(_at(time.time()) + _field(3, b"brain.Event:2")),
            )


def _at(wall_seconds: float) -> bytes:
    return b"\x09" + struct.pack("<d", wall_seconds)


def _field(number: int, body: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(body)) + body


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])
