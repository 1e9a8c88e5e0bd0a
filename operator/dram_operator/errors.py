"""Every way the control plane's own work can fail, and whether trying again helps.

    OperatorError
    ├── Transient                  the world failed: the key is tried again with a growing delay
    │   ├── Unavailable            no answer, 429 or a server error; `retry_after` where the server said one
    │   ├── Conflict               somebody wrote first: what was decided is dropped and decided anew
    │   └── NameTaken              a child's name belongs to an object that is not ours (yet)
    └── Terminal                   the same request would fail again until somebody changes something
        ├── NotFound               the object is gone
        ├── Refused                the API server says no: rights, quota, admission or validation
        ├── LeaseLost              another replica leads, or may lead: this process has to go
        ├── RepositoryInvalid      the release repository is not what its keys signed
        │   ├── BucketRestored     … any more: it went back in time
        │   └── KeyRetired         this process signs with a key that no longer counts
        └── SettingsInvalid        the installation says something that cannot be: the process does not start

Raised at the boundary that knows; the class alone decides about the next attempt.
"""


class OperatorError(Exception):
    """The control plane cannot go on with what it was doing."""


class Transient(OperatorError):
    """Worth another attempt."""


class Unavailable(Transient):
    """The API server did not answer, or not now. `retry_after` is in seconds."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Conflict(Transient):
    """The object changed since it was read."""


class NameTaken(Transient):
    """A create met an object of that name."""


class Terminal(OperatorError):
    """Another attempt would end the same."""


class NotFound(Terminal):
    """The object does not exist."""


class Refused(Terminal):
    """The API server refused; the message is the server's own, `reason` its word for it."""

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class LeaseLost(Terminal):
    """The leader lease could not be renewed in time."""


class RepositoryInvalid(Terminal):
    """The release repository lacks something that its metadata names, or holds it without the right signature."""


class BucketRestored(RepositoryInvalid):
    """The bucket went back in time: devices would refuse its metadata as replayed."""


class KeyRetired(RepositoryInvalid):
    """The key of this process was rotated out."""


class SettingsInvalid(Terminal):
    """Settings that cannot be used; the message names each with what is wrong and what to do."""
