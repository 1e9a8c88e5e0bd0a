"""What the parts of one replica share."""

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from dram_operator.adapters.kubernetes import Kubernetes
from dram_operator.runtime.cache import Cache, Key
from dram_operator.runtime.events import Recorder
from dram_operator.settings import Settings


@dataclass(frozen=True)
class Surroundings:
    """What a replica shares between kinds."""

    settings: Settings
    api: Kubernetes
    cache: Cache
    recorder: Recorder
    wake: Callable[[Key], None]
    clock: Callable[[], datetime]
