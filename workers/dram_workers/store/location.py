"""Where a URI lies on this machine, if it does."""

from pathlib import Path
from urllib.parse import unquote, urlsplit


def local_path(uri: str, mounts: dict[str, str]) -> Path | None:
    """The local file or folder behind a URI: by the longest mapped prefix, else by `file://`; None for a remote one."""
    for prefix in sorted(mounts, key=len, reverse=True):
        trimmed = prefix.rstrip("/")
        if uri.rstrip("/") == trimmed or uri.startswith(trimmed + "/"):
            return Path(mounts[prefix]) / uri[len(trimmed) :].strip("/")
    if uri.startswith("file://"):
        return Path(unquote(urlsplit(uri).path))
    return None


def join(uri: str, *parts: str) -> str:
    """A URI with more path components."""
    return "/".join([uri.rstrip("/"), *(part.strip("/") for part in parts if part.strip("/"))])
