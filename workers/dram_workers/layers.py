"""Which of the teacher's layers a student keeps, and what its config then says. No torch."""

from collections.abc import Mapping
from typing import Any

from dram_workers.errors import BadInput, WorkerReason


def kept_layers(teacher_layers: int, layers: int) -> tuple[int, ...]:
    """Evenly spaced layers of the teacher, the first and the last included; one layer is the first."""
    if layers > teacher_layers:
        raise BadInput(
            WorkerReason.TOO_MANY_LAYERS,
            f"the student asks for {layers} layers, the teacher has {teacher_layers}",
            field="spec.student.fromTeacher.layers",
            remedy=f"ask for at most {teacher_layers} layers",
        )
    gaps = max(1, layers - 1)
    return tuple((2 * number * (teacher_layers - 1) + gaps) // (2 * gaps) for number in range(layers))


def cut_config(config: Mapping[str, Any], kept: tuple[int, ...]) -> dict[str, Any]:
    """The config with the kept layers alone; a list with an entry a layer keeps those of the kept layers."""
    values = dict(config)
    total = values["num_hidden_layers"]
    for name, value in values.items():
        if isinstance(value, list) and len(value) == total and name.startswith("layer"):
            values[name] = [value[number] for number in kept]
    values["num_hidden_layers"] = len(kept)
    return values
