"""`spec.teacher`: a model in a folder, or one behind an endpoint."""

from typing import Annotated

from pydantic import Field

from dram_workers.model import Model

Uri = Annotated[str, Field(min_length=1, max_length=256)]


class SecretRef(Model):
    """A Secret of the same namespace."""

    name: Annotated[str, Field(min_length=1, max_length=253)]
    """The Secret's name."""


class Endpoint(Model):
    """A teacher that answers over an OpenAI-compatible API. It writes text, so the objective's mode is Sequence."""

    url: Uri
    """Base URL, as https://api.example.com/v1; `/chat/completions` is added to it."""
    model: Annotated[str, Field(min_length=1, max_length=256)]
    """The model's name at this endpoint."""
    secret_ref: SecretRef | None = None
    """Secret with OPENAI_API_KEY; absent where the endpoint asks for no key, or in local runs the environment has it."""
    concurrency: Annotated[int, Field(ge=1, le=256)] = 8
    """Requests at a time from one pod; lower it where the endpoint limits the rate."""


class Teacher(Model):
    """The model to learn from: its weights, or an endpoint that it answers at. Set exactly one."""

    uri: Uri | None = None
    """Where the teacher lies: hf://org/name@revision, s3://bucket/prefix or pvc://claim/path; in a local run also
    file:///path or a path. Only safetensors are read."""
    endpoint: Endpoint | None = None
    """Where the teacher answers, when its weights are not at hand; Sequence mode only."""
    workers: Annotated[int, Field(ge=1, le=512)] = 1
    """Pods in which the teacher works where it works before training: when it writes data or logits. They need not run
    at the same time."""
