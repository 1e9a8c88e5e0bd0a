"""TensorBoard's event files, byte by byte."""

import struct
from collections.abc import Iterator
from pathlib import Path

from dram_workers.store.folder import FolderStore
from dram_workers.train.board import ROTATE_BYTES, Board, masked_crc32c, scalars_event, start_events

ROW = {"step": 7, "loss": 1.5, "learningRate": 1e-3, "drawn": 123456789}


def unmasked(masked: int) -> int:
    rotated = (masked - 0xA282EAD8) & 0xFFFFFFFF
    return (rotated >> 17 | rotated << 15) & 0xFFFFFFFF


def messages(body: bytes) -> Iterator[bytes]:
    """The records of a file, their checksums checked."""
    while body:
        length, check = struct.unpack("<QI", body[:12])
        assert check == masked_crc32c(body[:8])
        message = body[12 : 12 + length]
        assert struct.unpack("<I", body[12 + length : 16 + length]) == (masked_crc32c(message),)
        yield message
        body = body[16 + length :]


def fields(message: bytes) -> dict[int, list[bytes | int]]:
    """A protocol buffer's fields by number."""
    found: dict[int, list[bytes | int]] = {}
    while message:
        tag, message = varint(message)
        value: bytes | int
        match tag & 7:
            case 0:
                value, message = varint(message)
            case 1:
                value, message = message[:8], message[8:]
            case 5:
                value, message = message[:4], message[4:]
            case _:
                size, message = varint(message)
                value, message = message[:size], message[size:]
        found.setdefault(tag >> 3, []).append(value)
    return found


def varint(message: bytes) -> tuple[int, bytes]:
    value = 0
    for index, byte in enumerate(message):
        value |= (byte & 0x7F) << 7 * index
        if byte < 0x80:
            return value, message[index + 1 :]
    raise AssertionError("cut off")


def scalars(message: bytes) -> tuple[int, dict[str, float]]:
    """Step and figures of an event."""
    event = fields(message)
    step, (summary,) = event.get(2, [0])[0], event[5]
    assert isinstance(step, int)
    assert isinstance(summary, bytes)
    figures = {}
    for value in fields(summary)[1]:
        assert isinstance(value, bytes)
        (tag,), (number,) = fields(value)[1], fields(value)[2]
        assert isinstance(tag, bytes)
        assert isinstance(number, bytes)
        (figures[tag.decode()],) = struct.unpack("<f", number)
    return step, figures


def test_the_checksum_is_castagnolis() -> None:
    assert unmasked(masked_crc32c(b"123456789")) == 0xE3069283


def test_a_file_begins_as_every_event_file_does() -> None:
    started = start_events(0, 1_700_000_000.0)
    assert started[:13] == b"\x18\x00\x00\x00\x00\x00\x00\x00\xa3\x7fK\x22\x09"
    version, session = messages(started)
    assert fields(version)[3] == [b"brain.Event:2"]
    assert fields(session)[7] == [b"\x08\x01"], "SessionLog.START"


def test_every_figure_of_a_row_is_a_curve() -> None:
    step, figures = scalars(scalars_event(300, 5.0, {"train/loss": 1.5, "train/validationKL": -0.25}))
    assert (step, figures) == (300, {"train/loss": 1.5, "train/validationKL": -0.25})


def test_an_attempt_writes_its_own_files_and_starts_another_when_one_is_long(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    first, second = Board(store, "stages/train/k/tensorboard", 1, 0), Board(store, "stages/train/k/tensorboard", 12, 6)
    for board in (first, second):
        board.add(ROW)
        board.save()
    folder = tmp_path / "stages/train/k/tensorboard"
    names = ["events.out.tfevents.0000000001.0000.dram", "events.out.tfevents.0000000012.0000.dram"]
    assert sorted(path.name for path in folder.iterdir()) == names
    *_, last = messages((folder / names[1]).read_bytes())
    step, figures = scalars(last)
    assert step == 7
    assert set(figures) == {"train/loss", "train/learningRate"}
    while len(list(folder.iterdir())) == 2:
        first.add({f"name{number}": float(number) for number in range(2000)} | {"step": 8})
        first.save()
    sizes = {path.name: path.stat().st_size for path in folder.iterdir()}
    assert sizes[names[0]] > ROTATE_BYTES
    assert (
        next(messages((folder / "events.out.tfevents.0000000001.0001.dram").read_bytes()))[9:]
        == b"\x1a\x0dbrain.Event:2"
    )
