"""The server of OpenAI's transcription API: Ray Serve's HTTP in front of the replicas."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, cast

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, Response
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ReplicaState
from starlette.datastructures import Headers, UploadFile
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import Message

from das_lib.bulk.api import (
    FORM_BYTES,
    ApiError,
    Asked,
    Limits,
    answer,
    audio_error,
    bounded,
    check_exposure,
    check_length,
    is_authorized,
    known_model,
    model_list,
    model_object,
    parse_fields,
)
from das_lib.bulk.hear import Answer, Heard, HearSettings, hear
from das_lib.bulk.media import decode, duration
from das_lib.bulk.vad import Vad
from das_lib.errors import DasError, Reject
from das_lib.speech.audio import Audio, AudioError

FRONT = "das-front"
"""The app of the server, beside the replicas' own."""
MAX_FIELDS = 32
"""Of an upload beside the file; a few are known, and lists may repeat."""
SMALL_BYTES = 2**20
"""An upload that is refused is read to its end up to here; else its connection is closed."""
ONGOING = 1000
"""Requests that reach the front at once: many more than it takes, for it must refuse them."""
LATER_S = 30
"""Serve's own limit of time is behind ours by so much: ours says why."""
UNDETECTED = "en"
"""What silence is in where the language is detected."""


@dataclass(frozen=True, kw_only=True)
class Setup:
    """What a front serves, and how."""

    replicas: str
    """The app of `Recognizer`."""
    models: Mapping[str, str]
    """System by the name of its model."""
    branches: Sequence[str]
    """Names by number; 0 is the base."""
    limits: Limits
    """What it takes."""
    token: str | None
    """What clients must know; None: nothing, see `check_exposure`."""
    language: str | None
    """What is transcribed; None: each recording's own."""
    settings: HearSettings
    """How to hear; whether words have times is asked by each request."""
    vad: bool
    """Whether to decode speech alone."""


async def _refused(request: Request, error: Exception) -> Response:
    """An error in OpenAI's form."""
    headers = dict(getattr(error, "headers", None) or {})
    if isinstance(error, HTTPException):
        code = {404: "unknown_url", 405: "method_not_allowed"}.get(error.status_code, "bad_request")
        error = ApiError(error.status_code, code, error.detail)
    elif isinstance(error, ClientDisconnect):
        error = ApiError(400, "upload_ended", "the connection ended before the upload did")
    elif not isinstance(error, ApiError):
        error = ApiError(500, "internal_error", "the server failed; its log says why")
    if _is_large(request.headers):
        headers["Connection"] = "close"
    return JSONResponse(error.body, error.status, headers)


def _is_large(headers: Headers) -> bool:
    return "transfer-encoding" in headers or int(headers.get("content-length", 0)) > SMALL_BYTES


def _too_large(limits: Limits) -> ApiError:
    message = f"the file has more than {limits.max_bytes} bytes; compress or cut it"
    return ApiError(413, "file_too_large", message, "file")


def _overloaded(what: str) -> ApiError:
    return ApiError(429, "overloaded", f"{what}; try again later")


# Serve copies the routes as they are when the class is made: what they call stands above it.
_app = FastAPI(
    openapi_url=None,
    exception_handlers=dict.fromkeys(
        (ApiError, HTTPException, ClientDisconnect, Exception), _refused
    ),
)


@serve.ingress(_app)
class Front:
    """Answers requests: reads an upload, has its windows decoded, puts the transcript together."""

    def __init__(self, setup: Setup) -> None:
        self.setup, self.replicas = setup, serve.get_app_handle(setup.replicas)
        self.models, self.limits, self.language = setup.models, setup.limits, setup.language
        self.vad = Vad.from_package() if setup.vad else None
        self.created = int(time.time())
        self.inside, self.uploading = 0, 0
        self.turn = asyncio.Semaphore(self.limits.max_concurrent)
        self.room = asyncio.Semaphore(self.limits.max_windows)

    @_app.post("/v1/audio/transcriptions")
    async def transcriptions(self, request: Request) -> Response:
        """Transcribe an upload."""
        self._authorize(request)
        limits = self.limits
        size = int(request.headers.get("content-length", limits.max_bytes))
        if size > limits.max_bytes + FORM_BYTES:
            raise _too_large(limits)
        with self._place():
            try:
                async with asyncio.timeout(limits.timeout_s), self._form(request, size) as form:
                    return await self._transcribe(*form)
            except RayTaskError:
                raise  # the replica lives and has a bug
            except TimeoutError as error:
                message = f"not done within {limits.timeout_s:g} s; send shorter recordings"
                raise ApiError(504, "timeout", message) from error
            except AudioError as error:
                raise audio_error(error) from error
            except (RayError, RayServeException) as error:
                message = "a replica failed while it transcribed this; try again"
                raise ApiError(503, "replica_died", message) from error

    @_app.get("/v1/models")
    async def list_models(self, request: Request) -> dict[str, Any]:
        """What ``model`` may be."""
        self._authorize(request)
        return model_list(self.models, self.created)

    @_app.get("/v1/models/{name}")
    async def show_model(self, name: str, request: Request) -> dict[str, Any]:
        """One of them."""
        self._authorize(request)
        return model_object(known_model(name, self.models), self.created)

    @_app.get("/health")
    async def health(self) -> Response:
        """Whether there are replicas to transcribe; for load balancers, without a token."""
        status = await asyncio.to_thread(serve.status)
        app = status.applications.get(self.setup.replicas)
        states = [one.replica_states for one in app.deployments.values()] if app else []
        running = min((state.get(ReplicaState.RUNNING, 0) for state in states), default=0)
        return JSONResponse({"replicas": running, "requests": self.inside}, 200 if running else 503)

    def _authorize(self, request: Request) -> None:
        if self.setup.token and not is_authorized(
            request.headers.get("authorization"), self.setup.token
        ):
            message = "the token is missing or wrong; send Authorization: Bearer <token>"
            raise ApiError(401, "invalid_api_key", message)

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self.inside >= self.limits.max_concurrent + self.limits.max_waiting:
            raise _overloaded(f"{self.inside} requests are being worked on")
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    @asynccontextmanager
    async def _form(
        self, request: Request, size: int
    ) -> AsyncIterator[tuple[UploadFile, list[tuple[str, str]]]]:
        """The file of an upload of ``size``, on disk if it is large, and the other fields."""
        limits, count = self.limits, 0

        async def receive() -> Message:
            nonlocal count
            message = await request.receive()
            count += len(message.get("body", b""))
            if count > limits.max_bytes + FORM_BYTES:
                raise _too_large(limits)
            return message

        if not request.headers.get("content-type", "").lower().startswith("multipart/form-data"):
            raise ApiError(400, "invalid_content_type", "send the fields as multipart/form-data")
        if self.uploading + size > limits.max_uploading:
            raise _overloaded(f"{self.uploading} bytes are being uploaded")
        self.uploading += size
        try:
            form = await Request(request.scope, receive).form(
                max_files=1, max_fields=MAX_FIELDS, max_part_size=FORM_BYTES
            )
        finally:
            self.uploading -= size
        try:
            upload = form.get("file")
            if not isinstance(upload, UploadFile):
                message = "file is missing; upload one, with a name"
                raise ApiError(400, "missing_required_parameter", message, "file")
            if (upload.size or 0) > limits.max_bytes:
                raise _too_large(limits)
            yield upload, [(k, value) for k, value in form.multi_items() if isinstance(value, str)]
        finally:
            await form.close()

    async def _transcribe(self, upload: UploadFile, fields: list[tuple[str, str]]) -> Response:
        asked = parse_fields(fields, self.models, self.language)
        async with self.turn:
            heard = await self._hear(cast(BinaryIO, upload.file), asked)
        body, media_type = answer(heard.transcript, asked)
        return Response(body, media_type=media_type)

    async def _hear(self, file: BinaryIO, asked: Asked) -> Heard:
        check_length(await asyncio.to_thread(duration, file), self.limits)

        async def ask(audio: Audio, times: bool, window_s: float | None) -> Answer | Reject:
            response = self.replicas.transcribe.remote((audio, (asked.system,), times, window_s))
            try:
                found = await response
            except asyncio.CancelledError:
                response.cancel()  # else the replica goes on for nobody
                raise
            return found if isinstance(found, Reject) else found[asked.system]

        return await hear(
            bounded(decode(file), self.limits),
            ask,
            replace(self.setup.settings, word_times=asked.words),
            self.vad,
            self.room,
            id="upload",
            branches=self.setup.branches,
            language=self.language or UNDETECTED,
        )


def front(setup: Setup, *, num_cpus: float = 1) -> serve.Application:
    """The server as an app, to be run as `FRONT` with a route prefix; it counts as ``num_cpus``."""
    deployment = serve.deployment(
        name="Front", max_ongoing_requests=ONGOING, ray_actor_options={"num_cpus": num_cpus}
    )(Front)
    return deployment.bind(setup)


def start_http(host: str, port: int, token: str | None, limits: Limits) -> None:
    """Start Serve with its HTTP; before any other start of Serve, which would be without.

    Raises:
        DasError: see `check_exposure`; or the port is taken.
    """
    check_exposure(host, token)
    options = {"host": host, "port": port, "request_timeout_s": limits.timeout_s + LATER_S}
    try:
        serve.start(proxy_location="HeadOnly", http_options=options)
    except RuntimeError as error:
        serve.shutdown()
        message = f"--port={port} of --host={host} is in use or not ours to use; give another one"
        raise DasError(message) from error
