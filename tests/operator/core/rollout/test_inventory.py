"""Which devices there are."""

import json
from datetime import UTC, datetime, timedelta

import pytest

from dram_agent.cohort import device_hash
from dram_operator.core.rollout.inventory import (
    Device,
    Inventory,
    InventoryError,
    inventory_of_file,
    inventory_of_series,
)
from tests.operator.core.rollout.fleets import SALT

NOW = datetime(2026, 1, 31, 12, tzinfo=UTC)
EARLIER = NOW - timedelta(hours=1)
ONE, TWO, THREE = ("01" * 16, "02" * 16, "03" * 16)
NOTHING = Inventory(())


def a_line(**device: object) -> str:
    return json.dumps({"id": ONE} | device)


def test_devices_are_those_that_report_with_their_labels_and_class() -> None:
    labels = {
        "device": ONE,
        "device_class": "tv",
        "label_ring": "early",
        "label_site": "b1",
        "release": "aa",
        "attempt": "3",
    }
    found = inventory_of_series([(labels, NOW)])
    assert found.devices == (Device(ONE, {"ring": "early", "site": "b1"}, "tv", NOW),)
    assert found.known == 1


def test_a_device_with_several_series_counts_once_by_its_newest() -> None:
    old, new = {"device": ONE, "label_ring": "early"}, {"device": ONE, "label_ring": "late"}
    for series in ([(old, EARLIER), (new, NOW)], [(new, NOW), (old, EARLIER)]):
        assert inventory_of_series(series).devices == (Device(ONE, {"ring": "late"}, None, NOW),)


def test_a_series_without_a_device_is_none() -> None:
    assert inventory_of_series([({"device_class": "tv"}, NOW), ({"device": ""}, NOW)]) == NOTHING


def test_a_file_says_which_devices_there_are_and_telemetry_when_they_were_seen() -> None:
    reported = inventory_of_series([({"device": ONE, "label_ring": "x"}, NOW), ({"device": THREE}, NOW)])
    text = f'{a_line(labels={"ring": "early"})}\n\n{{"id": "{TWO}", "class": "tv"}}\n'
    assert inventory_of_file(text, reported).devices == (
        Device(ONE, {"ring": "early"}, None, NOW),
        Device(TWO, {}, "tv", None),
    )


def test_a_retired_device_is_not_known() -> None:
    assert inventory_of_file(a_line(retired=True), NOTHING).known == 0


@pytest.mark.parametrize(
    ("text", "want"),
    [
        ("{", "line 1 of the inventory is not JSON"),
        (f"{a_line()}\nnull", "line 2 of the inventory: "),
        (a_line(id="tv-7"), "line 1 of the inventory: id: "),
        (a_line(clas="tv"), "line 1 of the inventory: clas: "),
        (a_line(labels={"a.b": "c"}), "line 1 of the inventory: labels.a.b"),
        (f"{a_line()}\n{a_line()}", f"device {ONE} stands in the inventory twice"),
    ],
)
def test_a_line_that_is_no_device_is_named(text: str, want: str) -> None:
    with pytest.raises(InventoryError) as refused:
        inventory_of_file(text, NOTHING)
    assert str(refused.value).startswith(want)


def test_a_fleet_is_in_the_order_of_the_salted_hashes() -> None:
    devices = tuple(Device(name, {"ring": name[:2]}) for name in (ONE, TWO, THREE))
    fleet = Inventory(devices).salted(SALT)
    assert list(fleet.hashes) == sorted(device_hash(bytes.fromhex(SALT), device.id) for device in devices)
    assert [fleet.labels_of(hashed)["ring"] for hashed in fleet.matching({"ring": "02"})] == ["02"]
    assert fleet.labels_of(0) == {}
    assert [fleet.up_to(hashed) for hashed in fleet.hashes] == [1, 2, 3]
