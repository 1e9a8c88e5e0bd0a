"""What the teach stage tells the training: which shards hold the logits of a dataset. No torch."""

from pathlib import Path

from dram_workers.data.dataset import Dataset
from dram_workers.model import Model
from dram_workers.parts import Part
from dram_workers.stages import TeachConfig, canonical_json
from dram_workers.teach.shards import plan_shards

INDEX = "logits.json"
SHORT = slice(len("sha256:"), len("sha256:") + 16)


class ShardEntry(Model):
    """One shard in the cache."""

    key: str
    sha256: str
    size: int


class Index(Model):
    """The output `logits`. It has the digest of every shard, so its own digest stands for all of the logits."""

    folder: str
    """Where the shards lie in the store."""
    rows: int
    """Size of the vocabulary over which the teacher's probabilities sum to one."""
    top_k: int
    temperature: float
    shards: tuple[ShardEntry, ...]
    """In the order of the dataset."""

    @classmethod
    def read(cls, folder: Path) -> "Index":
        """From the output's folder."""
        return cls.model_validate_json((folder / INDEX).read_bytes())

    def write(self, folder: Path) -> None:
        """As the output's folder."""
        folder.mkdir(parents=True)
        (folder / INDEX).write_bytes(canonical_json(self.model_dump(mode="json")))

    def parts(self) -> tuple[Part, ...]:
        """The shards as they lie in the store."""
        return tuple(Part(entry.key, entry.sha256, entry.size) for entry in self.shards)

    def shard_of(self, dataset: Dataset) -> dict[str, Part]:
        """The shard of every sample of the dataset, by the sample's key."""
        planned = zip(plan_shards(dataset), self.parts(), strict=True)
        return {key: part for shard, part in planned for key in shard.keys}


def cache_folder(config: TeachConfig, rows: int) -> str:
    """The folder of all logits of a teacher that was asked in the same way."""
    identity = config.identity
    models = "-".join(config.inputs[name].digest[SHORT] for name in ("teacher", "tokenizer"))
    attention = "packed" if identity.packing else "rows"
    asked = f"k{identity.top_k}-t{identity.temperature:g}-v{rows}-{attention}"
    return f"cache/teacher/{models}-{identity.precision.lower()}/{asked}"
