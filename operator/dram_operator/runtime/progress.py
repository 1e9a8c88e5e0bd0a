"""The progress endpoint: rank 0 of a stage posts how far it is, with the token of its pod."""

from collections.abc import Callable
from datetime import timedelta

from aiohttp import web
from pydantic import ValidationError

from dram_operator.adapters.resources import PODS, Object
from dram_operator.adapters.views import owner_uid
from dram_operator.core.jobs import JOB_LABEL
from dram_operator.core.progress import WRITE_EVERY_SECONDS
from dram_operator.core.times import parse_time
from dram_operator.core.worker_pod import ATTEMPT_LABEL, STAGE_LABEL
from dram_operator.errors import OperatorError
from dram_operator.runtime.board import ProgressBoard
from dram_operator.runtime.cache import Cache, Key
from dram_operator.runtime.tokens import Caller, Tokens
from dram_workers.results import Progress

LARGEST_BODY = 64 * 1024


class ProgressEndpoint:
    """Authenticates reports and puts them on the board."""

    def __init__(self, tokens: Tokens, cache: Cache, board: ProgressBoard, wake: Callable[[Key, float], None]) -> None:
        self._tokens = tokens
        self._cache = cache
        self._board = board
        self._wake = wake

    async def accept(self, request: web.Request) -> web.Response:
        """Take one report; 400, 401, 403, 413 or 503 say what is wrong with it."""
        token = _bearer(request)
        report = read_report(await read_body(request))
        try:
            caller = await self._tokens.caller(token)
        except OperatorError as error:
            raise web.HTTPServiceUnavailable(text=f"the token cannot be reviewed now: {error}\n") from error
        if caller is None:
            raise web.HTTPUnauthorized(text="the token is not valid for this audience\n")
        key = self._job_of(caller, report)
        if key is None:
            raise web.HTTPForbidden(text="the pod does not belong to this stage of a DistillationJob\n")
        self._board.post(key, report)
        self._wake(key, self._due_in(key, report))
        return web.Response(status=204)

    def _job_of(self, caller: Caller, report: Progress) -> Key | None:
        """The DistillationJob whose attempt's pod is calling, followed from owner to owner by UID."""
        pod = self._cache.find(PODS, caller.namespace, caller.pod)
        if pod is None or pod["metadata"]["uid"] != caller.uid:
            return None
        labels: dict[str, str] = pod["metadata"].get("labels", {})
        key = Key(caller.namespace, labels.get(JOB_LABEL, ""))
        snapshot = self._cache.snapshot(key)
        attempt = next((child for child in snapshot.jobs if _uid(child) == owner_uid(pod)), None) if snapshot else None
        told = (report.stage, str(report.attempt))
        return key if attempt and _stage_and_attempt(attempt) == told else None

    def _due_in(self, key: Key, report: Progress) -> float:
        """Seconds until status may say it: progress alone changes status once in a while only."""
        snapshot, view = self._cache.snapshot(key), self._board.view(key)
        written = snapshot.job.get("status", {}).get("progress") if snapshot else None
        if view is None or written is None or written["stage"] != report.stage:
            return 0.0
        due = parse_time(written["updatedAt"]) + timedelta(seconds=WRITE_EVERY_SECONDS)
        return max(0.0, (due - view.latest_at).total_seconds())


async def read_body(request: web.Request) -> bytes:
    """The body, if it is not larger than a report may be."""
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > LARGEST_BODY:
            raise web.HTTPRequestEntityTooLarge(LARGEST_BODY, len(body))
    return bytes(body)


def read_report(body: bytes) -> Progress:
    """The report in a body; what is not one is refused."""
    try:
        return Progress.model_validate_json(body)
    except ValidationError as error:
        raise web.HTTPBadRequest(text=f"not a progress report: {error.errors()[0]['msg']}\n") from error


def _bearer(request: web.Request) -> str:
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token.strip():
        raise web.HTTPUnauthorized(text="a bearer token is required\n")
    return token.strip()


def _uid(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


def _stage_and_attempt(job: Object) -> tuple[str, str]:
    labels = job["metadata"]["labels"]
    return labels[STAGE_LABEL], labels[ATTEMPT_LABEL]
