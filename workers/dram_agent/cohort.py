"""Which devices a channel document means: hashes, cohorts, and the release of one device.

A device's hash is the first 64 bits of a SHA-256 over the channel's salt and its id, so it is uniform, the same on every
machine and in every language, and tells nothing of the id.
"""

import hashlib
from collections.abc import Mapping

from dram_agent.document import ChannelDocument, Cohort, Release


def device_hash(salt: bytes, device_id: str) -> int:
    """First 64 bits, big-endian, of SHA-256(salt ‖ 0x00 ‖ id in UTF-8)."""
    return int.from_bytes(hashlib.sha256(salt + b"\x00" + device_id.encode()).digest()[:8], "big")


def hash_hex(value: int) -> str:
    """A hash as documents write it: 16 hex digits, so that texts sort like numbers."""
    return f"{value:016x}"


def is_held_back(document: ChannelDocument, hashed: int) -> bool:
    """Whether the device is control: at or above the control's cut-off, and not named by any cohort."""
    if document.control is None or hashed < int(document.control.cutoff, 16):
        return False
    return not any(hash_hex(hashed) in cohort.hashes for cohort in document.cohorts)


def is_member(document: ChannelDocument, labels: Mapping[str, str], hashed: int) -> bool:
    """Whether the device is in the union of the cohorts and not held back: the treated arm."""
    return any(_holds(cohort, labels, hashed) for cohort in document.cohorts) and not is_held_back(document, hashed)


def release_for(document: ChannelDocument, labels: Mapping[str, str], hashed: int) -> Release | None:
    """What the device should run: the candidate for members, unless it is denied, else stable; none is no local model."""
    candidate = document.candidate
    if candidate and candidate.digest not in document.denied and is_member(document, labels, hashed):
        return candidate
    return document.stable


def _holds(cohort: Cohort, labels: Mapping[str, str], value: int) -> bool:
    if hash_hex(value) in cohort.hashes:
        return True
    if cohort.cutoff is None or value > int(cohort.cutoff, 16):
        return False
    return all(labels.get(key) == wanted for key, wanted in cohort.match_labels.items())
