"""Content-hash ids: the same content has the same id in every run and on every machine."""

import hashlib
import json
from typing import Any

ID_LENGTH = 16  # hex digits, 64 bits: a clash among 10^8 rows has a chance of about 3e-4
VERSION_MARK = "#"
HASH_LENGTH = 8  # hex digits of a folder's name


def row_id(*parts: str) -> str:
    """Id of a row: hash of the parts that make it what it is, e.g. domain and text."""
    return hashlib.sha256("\x1f".join(parts).encode()).hexdigest()[:ID_LENGTH]


def version_id(utterance: str, version: int) -> str:
    """Id of one version of an utterance (see `das_lib.speech.augment`); the first keeps its own."""
    return f"{utterance}{VERSION_MARK}{version}" if version else utterance


def utterance_id(version: str) -> str:
    """The utterance that a version is of."""
    return version.split(VERSION_MARK, 1)[0]


def content_hash(value: Any) -> str:
    """Hash of a JSON-like value, independent of the order of keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:HASH_LENGTH]
