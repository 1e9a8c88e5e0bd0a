"""Lists of devices: only a namespace's own, read again only when they changed, and never without a bound."""

import pytest

from dram_operator.adapters.releases import inventory
from dram_operator.adapters.releases.bucket import Bucket
from dram_operator.adapters.releases.inventory import InventoryFiles
from dram_operator.errors import NotFound, OperatorError, Refused
from tests.operator.adapters.releases.installation import Installation

LINES = '{"id": "00000000000000000000000000000001"}\n'


@pytest.fixture
def root(installation: Installation) -> str:
    installation.bucket.put("inventory/tv/devices.jsonl", LINES.encode())
    installation.bucket.put("inventory/tv-2/devices.jsonl", b"another tenant's")
    return installation.settings.uri


async def test_a_list_is_read_once_until_it_changes(installation: Installation, root: str) -> None:
    files, uri = InventoryFiles(installation.bucket), f"{root}/inventory/tv/devices.jsonl"
    first = await files.inventory_file(uri, "tv")
    assert first == LINES
    assert await files.inventory_file(uri, "tv") is first
    installation.bucket.put("inventory/tv/devices.jsonl", b"")
    assert await files.inventory_file(uri, "tv") == ""
    installation.bucket.delete(["inventory/tv/devices.jsonl"])
    with pytest.raises(NotFound, match="there is no s3://"):
        await files.inventory_file(uri, "tv")


@pytest.mark.parametrize(
    "path",
    [
        "inventory/tv-2/devices.jsonl",
        "inventory/devices.jsonl",
        "inventory/tv/",
        "inventory/tv",
        "inventory/tv/../tv-2/devices.jsonl",
        "inventory/tv//devices.jsonl",
        "metadata/timestamp.json",
    ],
)
async def test_nothing_else_of_the_bucket_is_read(installation: Installation, root: str, path: str) -> None:
    with pytest.raises(Refused, match="is not this namespace's: put the file below"):
        await InventoryFiles(installation.bucket).inventory_file(f"{root}/{path}", "tv")


async def test_another_bucket_is_not_asked(installation: Installation) -> None:
    with pytest.raises(Refused, match="not this namespace's"):
        await InventoryFiles(installation.bucket).inventory_file("s3://tenants/inventory/tv/devices.jsonl", "tv")


async def test_what_is_too_long_or_no_text_is_refused(
    installation: Installation, root: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    uri = f"{root}/inventory/tv/devices.jsonl"
    monkeypatch.setattr(inventory, "LARGEST_BYTES", len(LINES) - 1)
    with pytest.raises(Refused, match=f"has {len(LINES)} bytes, {len(LINES) - 1} are allowed"):
        await InventoryFiles(installation.bucket).inventory_file(uri, "tv")
    monkeypatch.setattr(inventory, "LARGEST_BYTES", len(LINES))
    assert await InventoryFiles(installation.bucket).inventory_file(uri, "tv") == LINES
    installation.bucket.put("inventory/tv/devices.jsonl", b"\xff")
    with pytest.raises(Refused, match="is no UTF-8"):
        await InventoryFiles(installation.bucket).inventory_file(uri, "tv")


async def test_memory_has_a_bound(installation: Installation, root: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inventory, "REMEMBERED_BYTES", 2 * len(LINES))
    files = InventoryFiles(installation.bucket)
    read = []
    for number in (1, 2, 3):
        installation.bucket.put(f"inventory/tv/{number}", LINES.encode())
        read.append(await files.inventory_file(f"{root}/inventory/tv/{number}", "tv"))
    again = [await files.inventory_file(f"{root}/inventory/tv/{number}", "tv") for number in (3, 2)]
    assert [one is other for one, other in zip(again, read[::-1], strict=False)] == [True, True]
    assert await files.inventory_file(f"{root}/inventory/tv/1", "tv") is not read[0]


async def test_a_server_that_is_away_is_worth_another_attempt(installation: Installation) -> None:
    from dataclasses import replace

    away = Bucket(replace(installation.settings, endpoint="http://127.0.0.1:9"))
    with pytest.raises(OperatorError) as caught:
        await InventoryFiles(away).inventory_file(f"{installation.settings.uri}/inventory/tv/x", "tv")
    assert type(caught.value).__name__ == "Unavailable"
