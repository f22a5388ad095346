"""Storage that stumbles is asked again; what does not pass is told at once."""

import errno
import logging
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

ATTEMPTS = 8
FIRST_DELAY_S = 0.5  # doubled from attempt to attempt
MAX_DELAY_S = 30.0
MAX_SECONDS = 300.0  # no attempt begins later than this after the first

# What network file systems answer today and not tomorrow, beside ConnectionError and TimeoutError.
_PASSING = frozenset(
    [errno.EAGAIN, errno.EBUSY, errno.EHOSTUNREACH, errno.EIO, errno.ENETUNREACH, errno.ESTALE]
)

logger = logging.getLogger(__name__)
_T = TypeVar("_T")
_retries = 0
_lock = threading.Lock()


class GaveUpError(OSError):
    """A storage failed again and again, in a way that may still pass; its cause is the last error.

    Who catches it must not ask again: that was done.
    """


def retried(operation: Callable[[], _T], url: str) -> _T:
    """What the operation on ``url`` gives, at the latest after `ATTEMPTS`.

    The operation may be done several times, also where it succeeded and only the answer was lost.

    Raises:
        GaveUpError: it failed `ATTEMPTS` times, or for `MAX_SECONDS`.
        Exception: what it raised, if that does not pass.
    """
    global _retries
    began, attempt = time.monotonic(), 1
    while True:
        try:
            return operation()
        except Exception as error:  # botocore's errors share no base with OSError
            if not may_pass(error):
                raise
            # Jitter: else all the workers that a storage slows down come back at once.
            delay = min(MAX_DELAY_S, FIRST_DELAY_S * 2 ** (attempt - 1)) * random.uniform(0.5, 1)
            spent = time.monotonic() - began
            if attempt == ATTEMPTS or spent + delay > MAX_SECONDS:
                tried = f"gave up after {attempt} attempts in {spent:.0f} s"
                raise GaveUpError(f"{tried}: {error_text(error)}") from error
            attempt += 1
            logger.info(
                "%s: %s; attempt %d of %d in %.1f s",
                url,
                error_text(error),
                attempt,
                ATTEMPTS,
                delay,
            )
            with _lock:
                _retries += 1
            time.sleep(delay)


def retry_count() -> int:
    """How often this process had to ask a storage again."""
    return _retries


def may_pass(error: BaseException) -> bool:
    """Whether the same operation may succeed later."""
    chain = list(causes(error))
    if any(isinstance(e, GaveUpError) for e in chain):
        return False
    if response := s3_response(error):
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        code = str(response.get("Error", {}).get("Code"))
        slow = code == "RequestTimeout" or "Throttl" in code or "LimitExceeded" in code
        return slow or status in (408, 429) or status >= 500
    network = _network_errors()
    return any(
        isinstance(e, network) or (isinstance(e, OSError) and e.errno in _PASSING) for e in chain
    )


def _network_errors() -> tuple[type[BaseException], ...]:
    plain = (ConnectionError, TimeoutError)
    if "s3fs" not in sys.modules:  # a second to import, and no error can be one of its
        return plain
    from botocore.exceptions import ConnectionError as NoConnection
    from s3fs.core import S3_RETRYABLE_ERRORS

    return (*plain, *S3_RETRYABLE_ERRORS, NoConnection)


def causes(error: BaseException | None) -> Iterator[BaseException]:
    """The error and what it comes from: storage errors arrive wrapped, by s3fs and by us."""
    while error is not None:
        yield error
        error = error.__cause__


def s3_response(error: BaseException) -> dict:
    """What S3 answered, {} if it did not."""
    return next((r for e in causes(error) if (r := getattr(e, "response", None))), {})


def error_text(error: BaseException) -> str:
    """What an error says, or its name if it says nothing."""
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
