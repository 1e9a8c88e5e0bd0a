"""The smoke test of a model that is loaded but not served yet: it answers, well, in time, within the memory."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import urllib3
from urllib3.exceptions import HTTPError

from dram_agent.state import Why
from dram_workers.errors import StageError
from dram_workers.golden import GoldenItem, read_golden
from dram_workers.model import Model

OK = 200
CLOSE = {"Connection": "close"}


@dataclass(frozen=True)
class SmokeSettings:
    """What a model has to show before it is served."""

    golden: Path | None = None
    """A golden file of the owner's; else the artifact's own, where it has one."""
    items: int = 8
    """Items of it that are tried: the first that can be checked without a reference."""
    least_ratio: float = 1.0
    """Part of them that has to pass."""
    answer_seconds: float = 60.0
    """The longest that one answer may take."""
    memory_bytes: int | None = None
    """The most that the process may take."""


@dataclass(frozen=True)
class SmokeResult:
    """What the test found."""

    why: Why | None
    """None when it passed."""
    message: str
    golden_ratio: float | None = None
    """None where there was nothing to check."""


class Passed(Model):
    """What a model showed in the test that it passed; survives a reboot."""

    artifact: str
    """Digest of its build's manifest."""
    golden_ratio: float | None = None
    """None where there was nothing to check."""


def smoke_test(
    url: str,
    golden: Path | None,
    memory_bytes: Callable[[], int | None],
    settings: SmokeSettings,
    monotonic: Callable[[], float] = time.monotonic,
) -> SmokeResult:
    """Ask the model at `url`. It passes when every answer comes in time and enough of them are right."""
    try:
        items = _checkable(settings.golden or golden)[: settings.items]
    except StageError as error:
        return SmokeResult(Why.SMOKE, f"the golden file cannot be read: {error}")
    passed = 0
    for item in items or (None,):
        began = monotonic()
        answer = _ask(url, item, settings.answer_seconds)
        if answer is None or monotonic() - began > settings.answer_seconds:
            return SmokeResult(Why.SMOKE, "an answer did not come in time")
        passed += item is not None and _is_right(item, answer)
    ratio = passed / len(items) if items else None
    if ratio is not None and ratio < settings.least_ratio:
        return SmokeResult(Why.SMOKE, f"{passed} of {len(items)} golden items passed", ratio)
    used = memory_bytes()
    if used is None or (settings.memory_bytes is not None and used > settings.memory_bytes):
        return SmokeResult(Why.MEMORY, f"the process takes {used} bytes", ratio)
    return SmokeResult(None, f"passed with {used} bytes", ratio)


def _checkable(file: Path | None) -> Sequence[GoldenItem]:
    """Items whose answer can be judged by itself."""
    if file is None:
        return ()
    return [item for item in read_golden(file) if item.exact or item.contains or item.regex]


def _ask(url: str, item: GoldenItem | None, seconds: float) -> str | None:
    """The greedy answer to an item, or to a greeting; None when there was none."""
    messages = list(item.conversation) if item else [{"role": "user", "content": "Hello"}]
    most = (item.max_tokens if item else None) or (64 if item else 4)
    body = {"messages": messages, "max_tokens": most, "temperature": 0}
    try:
        answer = urllib3.request(
            "POST",
            f"{url}/v1/chat/completions",
            json=body,
            headers=CLOSE,
            timeout=urllib3.Timeout(seconds),
            retries=False,
        )
        if answer.status != OK:
            return None
        return str(answer.json()["choices"][0]["message"].get("content") or "")
    except (HTTPError, ValueError, KeyError, IndexError, TypeError, AttributeError):
        return None


def _is_right(item: GoldenItem, answer: str) -> bool:
    return (
        (item.exact is None or answer.strip() == item.exact.strip())
        and all(part in answer for part in item.contains)
        and (item.regex is None or re.search(item.regex, answer) is not None)
    )
