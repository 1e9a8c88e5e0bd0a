"""What went wrong at an S3 server, in the words of `spec.storage`."""

from collections.abc import Iterator
from contextlib import contextmanager

from boto3.exceptions import RetriesExceededError
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    HTTPClientError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    SSLError,
)

from dram_workers.errors import BadInput, NoPermission, StageError, Transient, WorkerReason
from dram_workers.stages import StoreSettings

DENIED = {
    "AccessDenied",
    "AccountProblem",
    "AllAccessDisabled",
    "ExpiredToken",
    "Forbidden",
    "InvalidAccessKeyId",
    "InvalidToken",
    "SignatureDoesNotMatch",
}
NO_BUCKET = {"InvalidBucketName", "NoSuchBucket"}
WRONG_REGION = {"AuthorizationHeaderMalformed", "PermanentRedirect", "IllegalLocationConstraintException"}
FORBIDDEN = (401, 403)
TIME_SKEW = "RequestTimeTooSkewed"
SERVER_ERROR = 500


@contextmanager
def storage_errors(settings: StoreSettings) -> Iterator[None]:
    """Turn boto3's errors into the stage's own: what to do about them depends on who has to act."""
    try:
        yield
    except ClientError as error:
        raise _refused(error, settings) from error
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise _denied(settings, str(error)) from error
    except SSLError as error:
        raise BadInput(
            WorkerReason.STORAGE_UNAVAILABLE,
            f"{_server(settings)} shows a certificate that is not trusted: {_short(error)}",
            field="spec.storage.caBundle",
            remedy="Put the certificate authority of the endpoint there as PEM.",
        ) from error
    except ParamValidationError as error:
        raise _no_bucket(settings, _short(error)) from error
    except (HTTPClientError, RetriesExceededError, BotoCoreError) as error:
        raise _unavailable(settings, _short(error)) from error


def _refused(error: ClientError, settings: StoreSettings) -> StageError:
    code = error.response.get("Error", {}).get("Code", "")
    status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
    what = f"{code}: {error.response.get('Error', {}).get('Message', '')}"[:300]
    if code in NO_BUCKET:
        return _no_bucket(settings, what)
    if code in WRONG_REGION:
        return BadInput(
            WorkerReason.STORAGE_NOT_FOUND,
            f"{settings.uri} is not in region {settings.region or 'of the default'}: {what}",
            field="spec.storage.region",
            remedy="Set the region of the bucket.",
        )
    if code == TIME_SKEW:
        return _unavailable(settings, what)
    if code in DENIED or status in FORBIDDEN:
        return _denied(settings, what)
    return _unavailable(settings, what)


def _denied(settings: StoreSettings, what: str) -> StageError:
    return NoPermission(
        WorkerReason.STORAGE_DENIED,
        f"{settings.uri}: {what}",
        field="spec.storage.secretRef",
        remedy=(
            "Name a Secret whose AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY may read, write, list and delete below this "
            "prefix, or a service account with that right (outside a cluster, set the variables)."
        ),
    )


def _no_bucket(settings: StoreSettings, what: str) -> StageError:
    return BadInput(
        WorkerReason.STORAGE_NOT_FOUND,
        f"the bucket of {settings.uri} does not exist at {_server(settings)} ({what})",
        field="spec.storage.uri",
        remedy="Create the bucket or correct its name.",
    )


def _unavailable(settings: StoreSettings, what: str) -> StageError:
    return Transient(
        WorkerReason.STORAGE_UNAVAILABLE,
        f"{_server(settings)} does not serve {settings.uri}: {what}",
        field="spec.storage.endpoint",
        remedy="Check that the object store runs and that this pod can reach it.",
    )


def _server(settings: StoreSettings) -> str:
    return settings.endpoint or "AWS"


def _short(error: Exception) -> str:
    return str(error).split("\n")[0][:300]
