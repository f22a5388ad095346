"""Errors that a user can act on, and rejections that a job survives."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass


class DasError(ValueError):
    """The user's input, configuration or machine does not allow the work.

    The message names the field, the value, the bound and the remedy. The command line prints it
    as one line and exits with 2; every other exception is a bug of ours and keeps its traceback.
    """


class StorageError(DasError):
    """A folder cannot be read or written: unreachable, unwritable or full."""


class ModelError(DasError):
    """A model, voice or adapter cannot be found or is not what its name says."""


@dataclass(frozen=True, slots=True)
class Reject:
    """One row that a stage could not use; counted and stored, never dropped silently.

    ``id`` is the id that the row would have had in the output, ``reason`` a short stable code
    (``silent``, ``no-list``), ``detail`` what a person needs to see the cause.
    """

    id: str
    reason: str
    detail: str = ""


@contextmanager
def collect(errors: list[DasError]) -> Iterator[None]:
    """Keep an error for `raise_all`, so that the others' work goes on."""
    try:
        yield
    except DasError as error:
        errors.append(error)


def raise_all(errors: Sequence[DasError]) -> None:
    """Raise what was collected, as one error.

    Raises:
        DasError: there is any.
    """
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise DasError(f"{len(errors)} failed, the others are done. " + "; ".join(map(str, errors)))
