"""The device runtime: llama.cpp as the xllamacpp wheel carries it, called through its C interface."""

from dram_workers.llamacpp.model import LlamaModel
from dram_workers.llamacpp.session import Generation, LlamaSession

__all__ = ["Generation", "LlamaModel", "LlamaSession"]
