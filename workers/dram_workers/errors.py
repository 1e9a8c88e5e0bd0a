"""Every way a stage can end badly, and what that means for the next attempt.

    StageError                 exit code    retried
    ├── BadInput               64           never: the same input fails again
    ├── GateInputMissing       65           never: a gate has nothing to decide on
    ├── Transient              75           yes, on the job's own retries
    └── NoPermission           77           never: somebody has to grant something

A stage raises one of these where the fact is known; the entry point turns it into the termination message and the
exit code. Anything else that escapes is a fault of ours and exits 1.
"""

from enum import IntEnum, StrEnum


class ExitCode(IntEnum):
    """What a worker's exit status tells the operator."""

    DONE = 0
    FAULT = 1
    BAD_INPUT = 64
    GATE_INPUT_MISSING = 65
    TRANSIENT = 75
    NO_PERMISSION = 77
    KILLED = 137
    TERMINATED = 143
    """SIGTERM came first: what could be checkpointed was."""


class WorkerReason(StrEnum):
    """Why a stage failed; shown as the reason of a condition, so each member is documented."""

    MODEL_NOT_FOUND = "ModelNotFound"
    """The URI of a teacher, student or embedder leads to no model."""
    HUB_UNAVAILABLE = "HubUnavailable"
    """The model hub did not answer, or answered with a server error."""
    ENDPOINT_UNAVAILABLE = "EndpointUnavailable"
    """The teacher's endpoint did not answer, limited the rate for too long, or answered with a server error."""
    ENDPOINT_DENIED = "EndpointDenied"
    """The teacher's endpoint refused the key, or its quota is used up."""
    ENDPOINT_REFUSED = "EndpointRefused"
    """The teacher's endpoint refused a request, does not know the model, or does not speak OpenAI's chat completions."""
    EMPTY_ANSWER = "EmptyAnswer"
    """The teacher answered with no text where some is needed."""
    SOURCE_NOT_FOUND = "SourceNotFound"
    """The URI of a dataset, prompts or golden file, or of an artifact or one of its files, leads nowhere."""
    STORAGE_DENIED = "StorageDenied"
    """The object store refused the credentials or the action."""
    STORAGE_NOT_FOUND = "StorageNotFound"
    """The bucket of the storage URI does not exist."""
    STORAGE_UNAVAILABLE = "StorageUnavailable"
    """The object store did not answer, or answered with a server error."""
    DIGEST_MISMATCH = "DigestMismatch"
    """What was read is not what was pinned when the run started, or what is to be released."""
    PART_LOST = "PartLost"
    """A part that pods of a stage had written is gone from the store or damaged there; it is made again."""
    EMPTY_DATASET = "EmptyDataset"
    """No sample is left to train on."""
    MALFORMED_LINE = "MalformedLine"
    """A line of a JSON Lines file is not what its form asks for; the message has file and line number."""
    GOLDEN_DUPLICATE_IDS = "GoldenDuplicateIds"
    """Two golden items share an id."""
    GOLDEN_TOO_FEW_ITEMS = "GoldenTooFewItems"
    """The golden suite cannot prove a limit of the gates even when every item passes."""
    GOLDEN_LEAK = "GoldenLeak"
    """A golden prompt stands in the training data."""
    SIMILARITY_LIMIT_TOO_LOW = "SimilarityLimitTooLow"
    """Unrelated answers would pass the golden similarity limit."""
    TOKENIZER_MISMATCH = "TokenizerMismatch"
    """Teacher and student tokenizers differ by content, so their logits cannot be compared."""
    UNSAFE_MODEL = "UnsafeModel"
    """The model has pickled weights or code of its own; only safetensors are read."""
    UNSUPPORTED_MODEL = "UnsupportedModel"
    """The architecture is not one that this stage can handle."""
    CACHE_UNFAITHFUL = "CacheUnfaithful"
    """At this temperature the gradient from the cached logits is not that of the teacher."""
    TOO_MANY_LAYERS = "TooManyLayers"
    """The student asks for more layers than the teacher has."""
    RESERVED_DEEPSPEED_KEY = "ReservedDeepSpeedKey"
    """training.deepspeed.config sets a key that Dram owns."""
    DEEPSPEED_CONFIG_INVALID = "DeepSpeedConfigInvalid"
    """The settings of training.deepspeed do not fit together, or DeepSpeed refuses them."""
    PRECISION_UNSUPPORTED = "PrecisionUnsupported"
    """The arithmetic that training.precision asks for is not one of this machine."""
    LOSS_NOT_FINITE = "LossNotFinite"
    """The loss became NaN or infinite."""
    LOSS_DIVERGED = "LossDiverged"
    """The loss went up and stayed there."""
    MEMORY_LIMIT_TOO_LOW = "MemoryLimitTooLow"
    """Weights, gradients and optimizer alone need more memory than a training pod may use."""
    DISK_FULL = "DiskFull"
    """No space is left in the scratch folder."""
    OUT_OF_MEMORY = "OutOfMemory"
    """The process hit its memory limit."""
    UNKNOWN_QUANTIZATION = "UnknownQuantization"
    """The export type is not one that this image offers."""
    CONVERSION_UNPROVEN = "ConversionUnproven"
    """The converted file does not tokenize, template or stop as the source model does."""
    RUNTIME_REFUSED = "RuntimeRefused"
    """The device runtime could not load the exported file."""
    RANK_FAILED = "RankFailed"
    """A training rank died without a message of its own."""
    ARTIFACT_UNFIT = "ArtifactUnfit"
    """The artifact has a form that devices or the release repository do not take."""
    UPLOAD_REFUSED = "UploadRefused"
    """The release repository did not take a file."""
    INTERRUPTED = "Interrupted"
    """The stage was told to stop, and stopped."""
    CONFIG_INVALID = "ConfigInvalid"
    """The stage config does not parse: operator and worker images do not fit together."""
    INTERNAL = "InternalError"
    """A fault of ours; the log has the traceback."""


class StageError(Exception):
    """A stage cannot go on. `field` is the spec's path, `remedy` what the reader can do."""

    exit_code = ExitCode.FAULT

    def __init__(
        self, reason: WorkerReason, message: str, *, field: str | None = None, remedy: str | None = None
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.field = field
        self.remedy = remedy


class BadInput(StageError):
    """The input is wrong, and will be wrong the next time."""

    exit_code = ExitCode.BAD_INPUT


class GateInputMissing(StageError):
    """Something that a gate decides on is not there."""

    exit_code = ExitCode.GATE_INPUT_MISSING


class Transient(StageError):
    """The world failed, not the input: worth another attempt."""

    exit_code = ExitCode.TRANSIENT


class NoPermission(StageError):
    """The credentials are missing, wrong or too weak."""

    exit_code = ExitCode.NO_PERMISSION


class Interrupted(StageError):
    """SIGTERM or Ctrl-C: what could be saved was saved."""

    exit_code = ExitCode.TERMINATED
