"""What the owner of a device writes down: one YAML file, read once; veto and pin are files, looked at all the time."""

import re
from pathlib import Path
from typing import Annotated, TypeVar

import yaml
from pydantic import Field, ValidationError

from dram_agent.document import CHANNEL, LabelValue
from dram_workers.model import Model

NAME = r"^[a-zA-Z0-9]([-a-zA-Z0-9_.]*[a-zA-Z0-9])?$"
ADDRESS = r"^\S*:[0-9]{1,5}$"
DEVICE_ID = "^[0-9a-f]{32}$"
"""128 random bits."""
Address = Annotated[str, Field(pattern=ADDRESS)]
"""`host:port` to listen at."""
OwnerLabel = Annotated[str, Field(max_length=63, pattern="^[a-zA-Z][a-zA-Z0-9]*(_[a-zA-Z0-9]+)*$")]
"""A label's name that stays the same on every way to a metrics server."""
ModelT = TypeVar("ModelT", bound=Model)


class SettingsInvalid(ValueError):
    """The file does not say what an agent needs; the message names the fields."""


class Cloud(Model):
    """Who answers when the device cannot."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """Address of an OpenAI-compatible endpoint, without `/v1`."""
    model: str | None = None
    """Put in place of the request's own."""
    key_file: Path | None = None
    """File with the key."""
    ca_file: Path | None = None
    """Authority of the address, PEM; absent, those of the system."""
    answer_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest answer."""


class Push(Model):
    """Where telemetry is sent by OTLP over HTTP, for devices that cannot be scraped."""

    url: Annotated[str, Field(pattern=r"^https?://")]
    """Full address, e.g. https://gateway.example.com/v1/metrics."""
    token_file: Path | None = None
    """File with a bearer token."""
    ca_file: Path | None = None
    """Authority of the address, PEM."""
    certificate_file: Path | None = None
    """Certificate of this device and its key, PEM, where the address asks for one."""
    interval_seconds: Annotated[float, Field(ge=1)] = 60.0
    """Seconds between two pushes."""


class AgentSettings(Model):
    """`agent.yaml`."""

    channel: Annotated[str, Field(pattern=CHANNEL)]
    """`namespace/name` of the EdgeRollout that this device follows."""
    repository: Annotated[str, Field(pattern=r"^https?://")]
    """Address of the release repository's root."""
    repository_ca_file: Path | None = None
    """Authority of the repository's address, PEM; absent, those of the system."""
    root: Path = Path("/etc/dram/root.json")
    """The pinned root of trust."""
    state: Path = Path("/var/lib/dram")
    """Folder for slots, metadata and state."""
    device_id_file: Path = Path("/etc/dram/device-id")
    """File with this device's id."""
    device_class: Annotated[str, Field(pattern=NAME)] | None = None
    """Class of the device, as releases name it."""
    labels: Annotated[dict[OwnerLabel, LabelValue], Field(max_length=16)] = {}
    """Labels that cohorts may select by."""
    listen: Address = "127.0.0.1:8080"
    """Where requests are taken."""
    metrics_listen: Address = "127.0.0.1:9108"
    """Where /metrics is served."""
    device_label: bool = True
    """Whether the device's id stands on its series; comparisons between devices need it."""
    context_tokens: Annotated[int, Field(ge=128)] = 2048
    """Tokens of context, shared by requests that are answered at once."""
    parallel: Annotated[int, Field(ge=1)] = 1
    """Requests that the model answers at once; more go to the cloud."""
    threads: Annotated[int, Field(ge=1)] | None = None
    """Threads of the model; absent, half of the cores."""
    memory_bytes: Annotated[int, Field(ge=1)] | None = None
    """The most that a model may take; absent, what is free is not checked."""
    golden: Path | None = None
    """Golden file to try a model with; absent, the artifact's own."""
    golden_least_ratio: Annotated[float, Field(ge=0, le=1)] = 1.0
    """Part of the golden items that has to pass before a model is served."""
    first_seconds: Annotated[float, Field(gt=0)] = 10.0
    """Longest wait for the first byte of a stream before the cloud answers."""
    answer_seconds: Annotated[float, Field(gt=0)] = 60.0
    """Longest answer of the device before the cloud answers."""
    cloud: Cloud | None = None
    push: Push | None = None
    veto_file: Path = Path("/etc/dram/veto")
    """While this file exists, the device takes up no other release."""
    pin_file: Path = Path("/etc/dram/pin")
    """File with the digest of the one release that the owner wants of those offered."""


def read_settings(path: Path) -> AgentSettings:
    """Read an agent's file. SettingsInvalid names what is wrong."""
    return read_yaml(AgentSettings, path)


def read_id(path: Path) -> str:
    """A device's id from its file. SettingsInvalid."""
    try:
        found = path.read_text().strip()
    except (OSError, ValueError) as error:
        raise SettingsInvalid(f"{path} cannot be read") from error
    if not re.fullmatch(DEVICE_ID, found):
        raise SettingsInvalid(f"{path} holds no device id: 32 hex digits, as `dram agent enroll` makes them")
    return found


def read_yaml(kind: type[ModelT], path: Path) -> ModelT:
    """Read settings of a kind from a YAML file. SettingsInvalid names what is wrong."""
    try:
        return kind.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise SettingsInvalid(f"{path} cannot be read: {str(error).splitlines()[0]}") from error
    except ValidationError as error:
        problems = "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()[:5])
        raise SettingsInvalid(f"{path}: {problems}") from error
