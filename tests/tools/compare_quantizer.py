"""Compare Dram's GGUF export with llama.cpp's own converter and quantizer, tensor for tensor.

Needs a checkout of llama.cpp with `build/bin/llama-quantize`; writes the report and the digests that the regression
test checks:

    python -m tests.tools.compare_quantizer --llama-cpp DIR --model FOLDER --report FILE --digests FILE
"""

import argparse
import hashlib
import json
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from gguf import GGUFReader

from dram_workers.export.checkpoint import Checkpoint
from dram_workers.export.gguf_file import Conversion, plan_tensors, write_gguf
from dram_workers.export.vocabulary import read_vocabulary
from dram_workers.stages import GgufType
from tests.tools.quantizer_models import MADE_MODELS, write_made_model

_CONVERT = """
import runpy, sys
sys.path.insert(0, sys.argv[1])
from conversion.base import TextModel
if sys.argv[2] == "made":
    TextModel.get_vocab_base_pre = lambda self, tokenizer: "smollm"  # the made tokenizer is in no list of known ones
sys.argv = [sys.argv[1] + "/convert_hf_to_gguf.py", *sys.argv[3:]]
runpy.run_path(sys.argv[0], run_name="__main__")
"""


_REPORT = """# Dram's GGUF export against llama.cpp's own quantizer

Recorded by `tests/tools/compare_quantizer.py`. Each model is converted to float32 by llama.cpp's `convert_hf_to_gguf.py`
and quantized by its `llama-quantize`, built from the source inside llama-cpp-python 0.3.36; the same folder is exported
by Dram; then every tensor is compared by name, type and SHA-256 of its bytes. The digest in the last column is over all of the quantizer's tensors;
`tests/workers/export/test_quantizer.py` exports the made models again and checks those digests in every test run.

```sh
# llama.cpp's source is inside the sdist of llama-cpp-python
pip download --no-deps --no-binary :all: llama-cpp-python==0.3.36 && tar xf llama_cpp_python-0.3.36.tar.gz
cd llama_cpp_python-0.3.36/vendor/llama.cpp
cmake -B build -DCMAKE_BUILD_TYPE=Release -DBUILD_SHARED_LIBS=OFF -DGGML_NATIVE=OFF -DGGML_AVX2=ON -DGGML_FMA=ON \\
  -DGGML_F16C=ON -DGGML_OPENMP=OFF -DLLAMA_CURL=OFF -DLLAMA_BUILD_SERVER=OFF -DLLAMA_BUILD_TOOLS=ON
cmake --build build -j2 --target llama-quantize
cd - && pip install sentencepiece   # the converter imports it
python -m tests.tools.compare_quantizer --llama-cpp llama_cpp_python-0.3.36/vendor/llama.cpp \\
  --model SmolLM2-135M-Instruct --report docs/design/quantizer-comparison.md \\
  --digests tests/workers/export/quantizer-digests.json
```

The models: SmolLM2-135M-Instruct (hidden size 576, so most K-quant tensors fall back) and made ones, each for a rule:
`wide` (multiples of 256, every K-quant), `untied` (an output matrix of its own), `fallback` (multiples of 32 only), `odd`
(rows that fit no block: F16), `eighty` (80 layers with grouped queries, which llama.cpp treats as its 70B class),
`llama3-rope` (frequency factors), `qwen2` (biases) and `qwen3` (query and key norms).

| model | type | equal tensors | types | digest |
|---|---|---|---|---|
{rows}
"""


class Silent:
    """A reporter that says nothing."""

    def report(self, step: int, total_steps: int, metrics: dict[str, float] | None = None) -> None:
        """Say nothing."""


def ours(folder: Path, path: Path, file_type: GgufType) -> Path:
    """Export with Dram."""
    checkpoint = Checkpoint(folder)
    plan = plan_tensors(checkpoint, file_type)
    vocabulary = read_vocabulary(checkpoint, plan.shape.vocabulary)
    conversion = Conversion(checkpoint, plan, vocabulary, file_type, folder.name)
    write_gguf(conversion, path, threads=2, reporter=Silent(), stopping=threading.Event())
    return path


def convert(llama_cpp: Path, folder: Path, path: Path) -> Path:
    """llama.cpp's own conversion to float32."""
    made = "made" if folder.name in MADE_MODELS else "known"
    command = [sys.executable, "-c", _CONVERT, str(llama_cpp), made, str(folder), "--outtype", "f32"]
    subprocess.run([*command, "--outfile", str(path)], check=True, capture_output=True)
    return path


def tensors(path: Path) -> dict[str, tuple[str, str]]:
    """Type and SHA-256 of the bytes of every tensor."""
    return {
        each.name: (each.tensor_type.name, hashlib.sha256(np.ascontiguousarray(each.data).tobytes()).hexdigest())
        for each in GGUFReader(path).tensors
    }


def metadata(path: Path) -> dict[str, str]:
    """Metadata as JSON texts, by key."""
    fields = GGUFReader(path).fields
    return {
        key: json.dumps(each.contents(), default=str) for key, each in fields.items() if not key.startswith("GGUF.")
    }


def whole_digest(found: Mapping[str, tuple[str, str]]) -> str:
    """One digest over names, types and bytes of all tensors."""
    return hashlib.sha256(json.dumps(sorted(found.items())).encode()).hexdigest()[:32]


def compare(llama_cpp: Path, folder: Path, work: Path) -> tuple[list[str], dict[str, str], bool]:
    """Rows of the report for one model, the quantizer's digest a type, and whether all tensors were equal."""
    rows, digests, equal = [], {}, True
    plain = convert(llama_cpp, folder, work / "f32.gguf")
    for file_type in GgufType:
        theirs = work / f"theirs-{file_type}.gguf"
        quantize = llama_cpp / "build/bin/llama-quantize"
        subprocess.run([quantize, plain, theirs, file_type.value, "2"], check=True, capture_output=True)
        want, got = tensors(theirs), tensors(ours(folder, work / f"ours-{file_type}.gguf", file_type))
        same = sum(want[name] == got.get(name) for name in want)
        equal &= same == len(want) == len(got)
        kinds = " ".join(
            f"{kind}:{count}" for kind, count in sorted(Counter(kind for kind, _ in want.values()).items())
        )
        rows.append(f"| {folder.name} | {file_type} | {same} of {len(want)} | {kinds} | `{whole_digest(want)}` |")
        digests[file_type.value] = whole_digest(want)
        theirs.unlink()
    rows.append(_metadata_row(folder.name, metadata(plain), metadata(work / "ours-F16.gguf")))
    return rows, digests, equal


def _metadata_row(name: str, want: dict[str, str], got: dict[str, str]) -> str:
    differing = sorted(key for key in want.keys() & got.keys() if want[key] != got[key])
    missing, added = sorted(want.keys() - got.keys()), sorted(got.keys() - want.keys())
    text = f"differ: {', '.join(differing) or 'none'}; only theirs: {', '.join(missing) or 'none'}; only ours: {', '.join(added) or 'none'}"
    return f"| {name} | metadata | {text} | | |"


def main() -> int:
    """Compare every model; 0 when all tensors are equal."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--llama-cpp", type=Path, required=True)
    parser.add_argument(
        "--model", type=Path, action="append", default=[], help="a model with a tokenizer llama.cpp knows"
    )
    parser.add_argument("--report", type=Path, required=True)
    parser.add_argument("--digests", type=Path, required=True)
    given = parser.parse_args()
    rows: list[str] = []
    digests: dict[str, dict[str, str]] = {}
    equal = True
    with TemporaryDirectory() as temporary:
        work = Path(temporary)
        made = [write_made_model(work / "models" / name, model) for name, model in MADE_MODELS.items()]
        for folder in [*given.model, *made]:
            more, found, same = compare(given.llama_cpp, folder, work)
            sys.stdout.write("\n".join(more) + "\n")
            rows, equal = rows + more, equal and same
            if folder.name in MADE_MODELS:
                digests[folder.name] = found
    given.report.write_text(_REPORT.format(rows="\n".join(rows)))
    given.digests.write_text(json.dumps(digests, indent=2, sort_keys=True) + "\n")
    return 0 if equal else 1


if __name__ == "__main__":
    sys.exit(main())
