"""The artifact: a variant's files under the digest of the manifest that names them, their origin and their figures."""

import hashlib
import json
from pathlib import Path
from typing import Any

from dram_workers.context import StageContext
from dram_workers.publish.card import CARD, model_card
from dram_workers.publish.evidence import Evidence
from dram_workers.results import Output
from dram_workers.stages import JobRef, PublishConfig, PublishVariant, canonical_json
from dram_workers.store.manifest import MANIFEST, FileEntry, describe

FORMAT = 1
"""Version of the artifact manifest's own form."""


def artifact_folder(job: JobRef, variant: str, digest: str) -> str:
    """The store's folder of an artifact; `digest` is that of its manifest."""
    return f"artifacts/{job.namespace}/{job.name}/{variant}/{digest.removeprefix('sha256:')}"


def publish_artifact(
    config: PublishConfig, context: StageContext, evidence: Evidence, variant: PublishVariant
) -> Output:
    """Write a releasable variant's files, then its manifest; what is there already is the same by its digest."""
    source = context.inputs.path(f"export-{variant.name}.artifact")
    work = context.work / variant.name
    work.mkdir(parents=True)
    (work / CARD).write_text(model_card(config, evidence, variant, describe(source)), encoding="utf-8")
    files = [*_with_role(source, "model"), *_with_role(work, "card")]
    body = json.dumps(
        _manifest(config, evidence, variant, files), indent=1, sort_keys=True, ensure_ascii=False
    ).encode()
    digest = f"sha256:{hashlib.sha256(body).hexdigest()}"
    folder = artifact_folder(config.job, variant.name, digest)
    if context.store.get_bytes(f"{folder}/{MANIFEST}") is None:
        for file in files:
            context.store.put_file(f"{folder}/{file.path}", (work if file.role == "card" else source) / file.path)
        context.store.put_bytes(f"{folder}/{MANIFEST}", body, if_absent=True)
    return Output(digest=digest, uri=context.store.uri(folder))


def _with_role(folder: Path, role: str) -> list[FileEntry]:
    return [file.model_copy(update={"role": role}) for file in describe(folder)]


def _manifest(
    config: PublishConfig, evidence: Evidence, variant: PublishVariant, files: list[FileEntry]
) -> dict[str, Any]:
    """Only what the inputs determine: no clock, no attempt, so that the same inputs make the same bytes."""
    export = evidence.stages[f"export-{variant.name}"]
    train = evidence.stages.get("train")
    return {
        "formatVersion": FORMAT,
        "job": {"namespace": config.job.namespace, "name": config.job.name},
        "variant": variant.name,
        "gguf": variant.gguf,
        "files": [file.model_dump(mode="json", exclude_none=True) for file in files],
        "runtime": {
            "name": "llama.cpp",
            "testedWith": f"xllamacpp {export.toolchain.get('xllamacpp', 'unknown')}",
            "isa": export.toolchain.get("machine"),
        },
        "digests": {name: given.digest for name, given in sorted(config.inputs.items())},
        "licence": evidence.licence,
        "recipes": {
            stage: {
                "kind": manifest.kind,
                "key": manifest.key,
                "recipe": manifest.recipe,
                "identity": manifest.identity,
            }
            for stage, manifest in evidence.stages.items()
            if _belongs(stage, variant.name)
        },
        "seeds": {
            stage: manifest.identity["seed"]
            for stage, manifest in evidence.stages.items()
            if "seed" in manifest.identity and _belongs(stage, variant.name)
        },
        "converter": export.toolchain,
        "trainer": train.toolchain if train else None,
        "measures": [
            json.loads(canonical_json(m.model_dump(mode="json", exclude_none=True)))
            for m in evidence.of_variant(variant.name).values()
        ],
        "gates": [
            row.model_dump(mode="json", exclude_none=True)
            for row in config.identity.gates
            if row.variant == variant.name
        ],
    }


def _belongs(stage: str, variant: str) -> bool:
    """Whether a stage had a part in this variant: the common ones, and those of the variant itself."""
    kind, _, name = stage.partition("-")
    return not name or name in {variant, "teacher", "student"} or kind not in {"export", "evaluate", "bench"}
