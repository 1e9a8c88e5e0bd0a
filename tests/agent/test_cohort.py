"""Membership: the same answer on every machine, for ever."""

import pytest

from dram_agent.cohort import device_hash, hash_hex, is_held_back, is_member, release_for
from dram_agent.document import Cohort, Control
from tests.agent.documents import ALL, HALF, NEW, OLD, a_document

# Made with `printf SALT; printf '\x00'; printf ID | sha256sum`: no change of this code may change them.
GOLDEN = [
    ("00", "device-1", "fb017c29d9733b4f"),
    ("6472616d", "0123456789abcdef0123456789abcdef", "9ac3cbf233a1c8a3"),
    ("6472616d", "Gerät-7", "7835e090dc5b0fa9"),
    ("", "", "6e340b9cffb37a98"),
]
HALF_WAY = 1 << 63


@pytest.mark.parametrize(("salt", "device_id", "want"), GOLDEN)
def test_a_hash_is_what_it_has_always_been(salt: str, device_id: str, want: str) -> None:
    assert hash_hex(device_hash(bytes.fromhex(salt), device_id)) == want


def test_salt_and_id_do_not_run_together() -> None:
    assert device_hash(b"ab", "c") != device_hash(b"a", "bc")


@pytest.mark.parametrize(
    ("name", "cohorts", "labels", "hashed", "want"),
    [
        ("no cohort", (), {}, 0, False),
        ("below the cut-off", (Cohort(cutoff=HALF),), {}, 5, True),
        ("at the cut-off", (Cohort(cutoff=HALF),), {}, HALF_WAY - 1, True),
        ("above the cut-off", (Cohort(cutoff=HALF),), {}, HALF_WAY, False),
        ("the last hash of all", (Cohort(cutoff=ALL),), {}, (1 << 64) - 1, True),
        ("the first hash of all", (Cohort(cutoff="0" * 16),), {}, 0, True),
        ("no cut-off takes nobody", (Cohort(),), {}, 0, False),
        ("named", (Cohort(hashes=("00000000000000ff",)),), {}, 255, True),
        ("named, whatever its labels", (Cohort(hashes=("00000000000000ff",), match_labels={"a": "1"}),), {}, 255, True),
        ("another is named", (Cohort(hashes=("00000000000000ff",)),), {}, 254, False),
        (
            "with the labels",
            (Cohort(cutoff=ALL, match_labels={"ring": "early"}),),
            {"ring": "early", "x": "y"},
            5,
            True,
        ),
        ("without the labels", (Cohort(cutoff=ALL, match_labels={"ring": "early"}),), {"x": "y"}, 5, False),
        ("with one of two labels", (Cohort(cutoff=ALL, match_labels={"a": "1", "b": "2"}),), {"a": "1"}, 5, False),
        ("with another value", (Cohort(cutoff=ALL, match_labels={"ring": "early"}),), {"ring": "late"}, 5, False),
        ("in the union", (Cohort(cutoff="0" * 16), Cohort(cutoff=HALF)), {}, 5, True),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_membership(name: str, cohorts: tuple[Cohort, ...], labels: dict[str, str], hashed: int, want: bool) -> None:
    assert is_member(a_document(cohorts=cohorts), labels, hashed) is want


def test_the_control_is_held_back_from_its_cut_off_on() -> None:
    document = a_document(cohorts=(Cohort(cutoff=ALL),), control=Control(cutoff="8000000000000000"))
    assert [is_held_back(document, hashed) for hashed in (HALF_WAY - 1, HALF_WAY)] == [False, True]
    assert [is_member(document, {}, hashed) for hashed in (HALF_WAY - 1, HALF_WAY)] == [True, False]


def test_a_named_device_is_never_held_back() -> None:
    document = a_document(cohorts=(Cohort(hashes=(ALL,)),), control=Control(cutoff="0" * 16))
    assert is_member(document, {}, (1 << 64) - 1)
    assert not is_held_back(document, (1 << 64) - 1)
    assert is_held_back(document, 5)


@pytest.mark.parametrize(
    ("name", "change", "hashed", "want"),
    [
        ("a member takes the candidate", {}, 5, NEW),
        ("the others stay", {}, HALF_WAY, OLD),
        ("a denied candidate is taken by nobody", {"denied": (NEW,)}, 5, OLD),
        ("without a candidate all run stable", {"candidate": None}, 5, OLD),
        ("without a stable release the others run nothing", {"stable": None}, HALF_WAY, None),
        ("nor do members of a denied one", {"stable": None, "denied": (NEW,)}, 5, None),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_the_release_of_a_device(name: str, change: dict[str, object], hashed: int, want: str | None) -> None:
    release = release_for(a_document(cohorts=(Cohort(cutoff=HALF),), **change), {}, hashed)
    assert (release.digest if release else None) == want
