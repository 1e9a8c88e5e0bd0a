"""Where a benchmark ran: the processor, and its energy counter where the kernel lets us read one."""

import platform
from dataclasses import dataclass
from pathlib import Path

_FLAGS = (
    "avx2",
    "fma",
    "f16c",
    "avx512f",
    "avx512_vnni",
    "avx512_bf16",
    "avx_vnni",
    "amx_int8",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
_ENERGY = Path("/sys/class/powercap/intel-rapl:0")


def processor() -> tuple[str, str]:
    """The processor's name, and those of its instruction sets that llama.cpp has kernels for."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine(), ""
    facts = {key.strip().lower(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    flags = set((facts.get("flags") or facts.get("features") or "").split())
    return facts.get("model name", platform.machine()), " ".join(flag for flag in _FLAGS if flag in flags)


@dataclass(frozen=True)
class EnergyCounter:
    """Energy of the processor package in microjoules, a counter that wraps."""

    folder: Path = _ENERGY

    def read(self) -> int | None:
        """The counter; None where there is none, or where it is not ours to read."""
        try:
            return int((self.folder / "energy_uj").read_text(encoding="ascii"))
        except (OSError, ValueError):
            return None

    def joules_since(self, before: int | None) -> float | None:
        """Energy used since an earlier reading."""
        now = self.read()
        if before is None or now is None:
            return None
        if now < before:
            now += int((self.folder / "max_energy_range_uj").read_text(encoding="ascii"))
        return (now - before) / 1e6
