"""The folder of converted models: one conversion at a time, and only whole folders have a name."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from filelock import FileLock

from das_lib.errors import ModelError

RECORD = "das_source.json"
"""Written last into every converted folder: where it came from and by which converter."""

CONVERTER_VERSION = 1
"""Raise it when a converter changes what it writes: older folders are then converted again."""


def cache_root(kind: str = "models") -> Path:
    """``$DAS_CACHE/models``, or ``das/models`` under the user's cache directory."""
    if own := os.environ.get("DAS_CACHE"):
        return Path(own).expanduser() / kind
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "das" / kind


def folder_of(name: str) -> Path:
    """Where the model of that name lies, converted or not yet."""
    return cache_root() / name.replace("/", "--")


def converted(name: str) -> Path | None:
    """The converted folder, or None. A name appears by renaming, so what is there is whole."""
    folder = folder_of(name)
    try:
        record = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        return None
    return folder if record.get("converter") == CONVERTER_VERSION else None


def build_once(name: str, build: Callable[[Path], dict[str, Any]]) -> Path:
    """Runs ``build(folder)`` unless another process has done it, and returns the finished folder.

    Whoever comes second waits for the lock and takes the first one's result. ``build`` fills a
    temporary sibling and returns facts for the record; the sibling is then renamed. A killed build
    leaves only the sibling, which the next one removes (the lock dies with its process).

    Raises:
        ModelError: the cache folder cannot be written or is full.
    """
    target = folder_of(name)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{target}.lock"):
            if (found := converted(name)) is not None:
                return found
            work = target.with_name(f"{target.name}.tmp")
            shutil.rmtree(work, ignore_errors=True)
            work.mkdir()
            try:
                record = {"name": name, "converter": CONVERTER_VERSION, **build(work)}
                (work / RECORD).write_text(json.dumps(record, indent=1))
                for file in work.iterdir():
                    file.chmod(0o644)  # safetensors writes 0600; a shared cache has other readers
                shutil.rmtree(target, ignore_errors=True)  # of an older converter
                work.rename(target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    except OSError as error:
        raise ModelError(
            f"model {name!r}: the model cache {target.parent} cannot be written: {error}. "
            "Free some space (about 1 GB) or set DAS_CACHE to a folder that can be written."
        ) from error
    return target
