"""The fresh process that a benchmark measures: load the file, answer prompts, tell what it cost.

Reads one JSON object from standard input and writes a JSON object a line. Light on purpose: whatever it imports
counts as memory of the runtime.
"""

import json
import sys
import time
from pathlib import Path

from dram_workers.llamacpp import LlamaModel, LlamaSession

MIB_KIB = 1024


def main() -> None:
    """Measure one process's share of the prompts."""
    task = json.load(sys.stdin)
    started = time.perf_counter()
    with (
        LlamaModel(Path(task["path"])) as model,
        LlamaSession(model, context_tokens=task["contextTokens"], threads=task["threads"]) as session,
    ):
        _tell({"loadSeconds": time.perf_counter() - started})
        room = task["contextTokens"] - task["answerTokens"]
        add_special = model.chat_template is None
        prompts = [model.tokenize(text, add_special=add_special)[-room:] for text in task["prompts"]]
        session.greedy(prompts[0], 2)
        for prompt in prompts:
            session.rewind(0)
            answer = session.greedy(prompt, task["answerTokens"], past_stops=True)
            _tell(
                {
                    "promptTokens": len(prompt),
                    "answerTokens": len(answer.tokens),
                    "firstTokenSeconds": answer.first_token_seconds,
                    "totalSeconds": answer.total_seconds,
                }
            )
    _tell({"peakMemoryMiB": peak_memory_mib()})


def peak_memory_mib() -> float:
    """Peak resident memory of this program, from the kernel; `ru_maxrss` would carry the parent's over."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    (peak,) = (line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(peak) / MIB_KIB


def _tell(fact: dict[str, float]) -> None:
    sys.stdout.write(json.dumps(fact) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
