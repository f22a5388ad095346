"""OpenAI's transcription API: what a request may ask, and the forms of answers and errors.

It knows no server; ``ray_jobs.listen`` is the one that speaks it.
"""

import hmac
import ipaddress
import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Any

from das_lib.bulk.formats import render
from das_lib.bulk.json_forms import verbose_json
from das_lib.bulk.kinds import printable
from das_lib.bulk.transcript import Transcript
from das_lib.errors import DasError
from das_lib.speech.audio import SAMPLE_RATE, Audio, AudioError

FORMATS = ("json", "text", "srt", "verbose_json", "vtt")
TIMES_OF = "timestamp_granularities[]"
FIELDS = ("model", "language", "prompt", "response_format", "temperature", "stream", TIMES_OF)
"""What a request may say beside ``file``."""
FORM_BYTES = 2**16
"""Of an upload beside the file in it."""
JSON, TEXT = "application/json", "text/plain"
SHOWN = 60
"""Characters of a wrong value that its error repeats."""
RETRY_AFTER_S = 5
STATUS_OF_REASON = {"too-long": 413, "storage": 500}
"""Of recordings that cannot be used; the others are 400."""


class ApiError(Exception):
    """A request that is not answered, as OpenAI's API says it."""

    def __init__(self, status: int, code: str, message: str, param: str | None = None) -> None:
        """Describe an error.

        Args:
            status: Of HTTP.
            code: A short stable name.
            message: What is wrong and the remedy.
            param: The field that is wrong.
        """
        super().__init__(message)
        self.status, self.code, self.message, self.param = status, code, message, param

    @property
    def body(self) -> dict[str, Any]:
        """The object that is answered."""
        kind = "server_error" if self.status >= 500 else "invalid_request_error"
        if self.status == 429:
            kind = "rate_limit_error"
        error = {"message": self.message, "type": kind, "param": self.param, "code": self.code}
        return {"error": error}

    @property
    def headers(self) -> dict[str, str]:
        """What HTTP wants beside the status."""
        if self.status in (429, 503):
            return {"Retry-After": str(RETRY_AFTER_S)}
        return {"WWW-Authenticate": "Bearer"} if self.status == 401 else {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What one server takes.

    Raises:
        DasError: a value is not above 0, or no file of ``max_bytes`` could be uploaded.
    """

    max_bytes: int = 100 * 2**20
    """Of an uploaded file."""
    max_seconds: float = 4 * 3600
    """Of audio in a file."""
    timeout_s: float = 600
    """From the arrival of a request to its answer."""
    max_concurrent: int = 32
    """Recordings that are heard at once."""
    max_waiting: int = 32
    """Requests that upload or wait beside those; more are refused."""
    max_uploading: int = 512 * 2**20
    """Bytes of uploads on their way at once; a server that reads ahead has them all in memory."""
    max_windows: int = 64
    """Windows of audio in memory, 2 MB each; two batches for each replica keep it busy."""

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 < value < math.inf:
                raise DasError(f"{field.name}={value:g} is out of bounds; give more than 0")
        if self.max_uploading < self.max_bytes + FORM_BYTES:
            raise DasError(
                f"max_uploading={self.max_uploading} is below max_bytes={self.max_bytes} and the "
                f"{FORM_BYTES} of the other fields; raise it"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """What a request wants to have."""

    system: str
    """Which of the systems is to transcribe."""
    format: str = "json"
    """One of `FORMATS`."""
    segments: bool = True
    """Whether verbose_json lists the segments."""
    words: bool = False
    """Whether verbose_json lists the words."""


def parse_fields(
    given: Iterable[tuple[str, str]], models: Mapping[str, str], language: str | None
) -> Asked:
    """What the fields of a request say.

    Args:
        given: Names and values of the form, without the file.
        models: System by the name of its model.
        language: What is transcribed; None: each recording's own.

    Raises:
        ApiError: a field is unknown, twice there, or asks for what there is not.
    """
    values: dict[str, list[str]] = {}
    for name, value in given:
        if name not in FIELDS:
            shown = printable(name[:SHOWN])
            message = f"{shown!r} is no field here; the fields are file, {_all(FIELDS)}"
            raise ApiError(400, "unsupported_parameter", message, shown)
        values.setdefault(name, []).append(value)
    granularities = values.pop(TIMES_OF, ())
    for name, several in values.items():
        if len(several) > 1:
            raise _wrong(name, f"{name} is given {len(several)} times; give it once")
    # A client's empty field is one that its user left out.
    one = {name: value for name, (value,) in values.items() if value}
    _check_unsupported(one, language)
    format = one.get("response_format", "json")
    if format not in FORMATS:
        message = f"response_format={format[:SHOWN]!r} is unknown; give one of {_all(FORMATS)}"
        raise _wrong("response_format", message)
    for value in granularities:
        if value not in ("segment", "word"):
            raise _wrong(TIMES_OF, f"{TIMES_OF}={value[:SHOWN]!r}; give segment or word")
    if granularities and format != "verbose_json":
        raise _wrong(TIMES_OF, f"{TIMES_OF} needs response_format=verbose_json, not {format}")
    if "model" not in one:
        message = f"model is missing; give one of {_all(models)}"
        raise ApiError(400, "missing_required_parameter", message, "model")
    return Asked(
        system=models[known_model(one["model"], models)],
        format=format,
        segments=not granularities or "segment" in granularities,
        words="word" in granularities,
    )


def known_model(name: str, models: Iterable[str]) -> str:
    """The name, if it is a model's.

    Raises:
        ApiError: it is none.
    """
    if name not in models:
        message = f"there is no model {name[:SHOWN]!r}; give one of {_all(models)}"
        raise ApiError(404, "model_not_found", message, "model")
    return name


def model_object(name: str, created: int) -> dict[str, Any]:
    """A model as the API describes it; ``created`` is in s since 1970."""
    return {"id": name, "object": "model", "created": created, "owned_by": "das"}


def model_list(models: Iterable[str], created: int) -> dict[str, Any]:
    """All of them."""
    return {"object": "list", "data": [model_object(name, created) for name in models]}


def answer(transcript: Transcript, asked: Asked) -> tuple[str, str]:
    """Body and media type of what was asked for."""
    if asked.format == "json":
        return json.dumps({"text": transcript.text}, ensure_ascii=False), JSON
    if asked.format == "text":
        return f"{transcript.text}\n", TEXT
    if asked.format != "verbose_json":
        return render(transcript, asked.format), TEXT
    value = verbose_json(transcript)
    for name, wanted in (("segments", asked.segments), ("words", asked.words)):
        if not wanted:
            value.pop(name, None)
    return json.dumps(value, ensure_ascii=False), JSON


def audio_error(error: AudioError) -> ApiError:
    """The answer to a recording that cannot be used; its code is the reason."""
    status = STATUS_OF_REASON.get(error.reason, 400)
    message = f"the file cannot be transcribed: {error.detail or error.reason}"
    return ApiError(status, error.reason, message, "file")


def check_length(seconds: float | None, limits: Limits) -> None:
    """Check the length of a recording by its header; None: it does not say.

    Raises:
        AudioError: ``too-long``.
    """
    if seconds is not None and seconds > limits.max_seconds:
        raise _too_long(f"{seconds:.1f} s, ", limits)


def bounded(blocks: Iterable[Audio], limits: Limits) -> Iterator[Audio]:
    """The same blocks of 16 kHz mono, as long as they are not too many.

    Raises:
        AudioError: ``too-long``, before what is too much is handed out.
    """
    count = 0
    for block in blocks:
        count += len(block)
        if count > limits.max_seconds * SAMPLE_RATE:
            raise _too_long("", limits)
        yield block


def is_authorized(header: str | None, token: str) -> bool:
    """Whether ``Authorization: Bearer <token>`` says the token."""
    scheme, _, given = (header or "").partition(" ")
    # Bytes: compare_digest takes no text beyond ASCII.
    same = hmac.compare_digest(given.strip().encode(), token.encode())
    return same and scheme.lower() == "bearer"


def check_exposure(host: str, token: str | None) -> None:
    """Check that only those can transcribe who shall.

    Args:
        host: The address that is listened at.
        token: What clients must know; None: nothing.

    Raises:
        DasError: others can reach the host and need no token, or the token cannot be sent.
    """
    if token is None and not _is_loopback(host):
        raise DasError(
            f"--host={host} is open to other machines and there is no token; put one into the "
            "environment variable DAS_TOKEN (or name another with --token-env), or give "
            "--host=127.0.0.1"
        )
    if token is not None and not (token and all("!" <= c <= "~" for c in token)):
        raise DasError(
            "the token of --token-env (DAS_TOKEN) is empty or holds what a header cannot; give "
            "letters, digits and signs of ASCII without blanks"
        )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_unsupported(one: Mapping[str, str], language: str | None) -> None:
    """Check what OpenAI's API can do and this one cannot."""

    def unsupported(name: str, why: str) -> ApiError:
        message = f"{name}={one[name][:SHOWN]!r}: {why}; leave it out"
        return ApiError(400, "unsupported_value", message, name)

    if "prompt" in one:
        raise ApiError(400, "unsupported_parameter", "prompts are not used; leave it out", "prompt")
    if one.get("language", language or "").lower() != (language or ""):
        what = f"this server transcribes {language}" if language else "the language is found"
        raise unsupported("language", what)
    if one.get("stream", "false").lower() not in ("false", "0"):
        raise unsupported("stream", "answers come whole")
    try:
        temperature = float(one.get("temperature", 0))
    except ValueError:
        temperature = math.nan
    if temperature != 0:
        raise unsupported("temperature", "it is chosen here and begins at 0")


def _wrong(param: str, message: str) -> ApiError:
    return ApiError(400, "invalid_value", message, param)


def _too_long(length: str, limits: Limits) -> AudioError:
    return AudioError("too-long", f"{length}more than {limits.max_seconds:g} s of audio; cut it")


def _all(names: Iterable[str]) -> str:
    return ", ".join(names)
