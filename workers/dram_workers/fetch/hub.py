"""The model hub, read by its own client: the token is `HF_TOKEN`, another endpoint `HF_ENDPOINT`."""

import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from fnmatch import fnmatch
from pathlib import Path

from dram_workers.errors import BadInput, NoPermission, StageError, Transient, WorkerReason
from dram_workers.store.objects import ObjectInfo

READ_FILES = ("*.safetensors", "*.json", "*.jinja", "*.model", "*.txt", "*.md", "LICENSE*")
"""What is fetched from a repository: weights, configuration, tokenizer, licence. Never a pickle or code."""

_URI = re.compile(r"hf://(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>[^@]+))?")
UNAUTHORISED = (401, 403)


class HubTree:
    """The files of a model repository at one commit."""

    def __init__(self, uri: str, field: str, cache: Path) -> None:
        from huggingface_hub import HfApi

        match = _URI.fullmatch(uri.rstrip("/"))
        if match is None:
            raise BadInput(
                WorkerReason.MODEL_NOT_FOUND,
                f"{uri} names no repository",
                field=field,
                remedy="Write hf://organisation/name@revision.",
            )
        self._uri, self._field, self._cache = uri, field, cache
        self._repository = match["repo"]
        with self._errors():
            info = HfApi().model_info(self._repository, revision=match["revision"] or "main", files_metadata=True)
        self._commit = info.sha or ""
        self._files = {file.rfilename: file for file in info.siblings or ()}

    @property
    def uri(self) -> str:
        """The URI with the commit in the place of a branch or tag."""
        return f"hf://{self._repository}@{self._commit}"

    def list(self, prefix: str) -> Iterator[ObjectInfo]:
        """Every file of the repository, also those that are never fetched."""
        for name in sorted(self._files):
            file = self._files[name]
            if name.startswith(prefix):
                yield ObjectInfo(
                    key=name, size_bytes=file.size or 0, modified=0.0, sha256=file.lfs.sha256 if file.lfs else None
                )

    def get_bytes(self, key: str, *, first: int | None = None) -> bytes | None:
        """Read a file, or its first bytes; None when there is none."""
        if key not in self._files:
            return None
        if first is None:
            return self._download(key).read_bytes()
        from huggingface_hub import get_session, hf_hub_url, hf_raise_for_status
        from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]

        with self._errors():
            url = hf_hub_url(self._repository, key, revision=self._commit)
            headers = {**build_hf_headers(), "Range": f"bytes=0-{first - 1}"}
            response = get_session().get(url, headers=headers, follow_redirects=True)
            hf_raise_for_status(response)
            return response.content[:first]

    def get_file(self, key: str, path: Path) -> None:
        """Download a file through the hub's own cache."""
        if key not in self._files:
            raise FileNotFoundError(f"{self._uri}: {key}")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(self._download(key), path)

    def fetch(self) -> Path:
        """Download everything that is read of a model; returns the snapshot's folder in the hub's cache."""
        from huggingface_hub import snapshot_download

        with self._errors():
            folder = snapshot_download(
                self._repository, revision=self._commit, allow_patterns=list(READ_FILES), cache_dir=self._cache
            )
        return Path(folder)

    def _download(self, key: str) -> Path:
        from huggingface_hub import hf_hub_download

        with self._errors():
            return Path(hf_hub_download(self._repository, key, revision=self._commit, cache_dir=self._cache))

    @contextmanager
    def _errors(self) -> Iterator[None]:
        from httpx2 import HTTPError
        from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, OfflineModeIsEnabled

        try:
            yield
        except (OfflineModeIsEnabled, LocalEntryNotFoundError) as error:
            raise BadInput(
                WorkerReason.MODEL_NOT_FOUND,
                f"{self._uri} cannot be read: {_short(error)}",
                field=self._field,
                remedy="Unset HF_HUB_OFFLINE, or give a file:// or s3:// URI.",
            ) from error
        except HfHubHTTPError as error:
            raise self._refused(error.response.status_code, _short(error)) from error
        except (HTTPError, OSError) as error:
            raise self._unavailable(_short(error)) from error

    def _refused(self, status: int, what: str) -> StageError:
        if status in UNAUTHORISED:
            return NoPermission(
                WorkerReason.MODEL_NOT_FOUND,
                f"{self._uri}: no such repository, or this token may not read it ({what})",
                field=self._field,
                remedy="Correct the name, or set HF_TOKEN by spec.podTemplate.envFromSecrets.",
            )
        if status == 404:
            return BadInput(
                WorkerReason.MODEL_NOT_FOUND,
                f"{self._uri}: no such repository or revision ({what})",
                field=self._field,
                remedy="Correct the name or the revision.",
            )
        return self._unavailable(what)

    def _unavailable(self, what: str) -> StageError:
        return Transient(
            WorkerReason.HUB_UNAVAILABLE,
            f"{self._uri}: the hub does not answer ({what})",
            field=self._field,
            remedy="Check that this pod can reach the hub, or copy the model to s3://.",
        )


def is_read(name: str) -> bool:
    """Whether this file of a repository is fetched."""
    return any(fnmatch(name, pattern) for pattern in READ_FILES)


def _short(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:200]
