"""Recordings to transcribe: a JSONL manifest, or speech held out of training."""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.compute as pc

from das_lib.errors import DasError, Reject
from das_lib.ids import row_id
from das_lib.rows import Outcome
from schemas.transcripts import CORPUS


def manifest_fingerprint(manifest: str | Path) -> str:
    """Hash of a manifest's lines and of the sizes of the recordings that it names.

    Raises:
        DasError: the manifest cannot be read.
    """
    digest = hashlib.sha256()
    for _, line in _lines(str(manifest)):
        digest.update(line.encode())
        entry = _entry(line)
        if isinstance(entry, dict):
            path = _audio_path(str(manifest), str(entry["audio"]))
            size = Path(path).stat().st_size if "://" not in path and Path(path).is_file() else -1
            digest.update(f"\x1f{size}\n".encode())
    return digest.hexdigest()[:16]


def read_manifest(
    manifest: str | Path, test_set: str, domain: str | None = None, limit: int | None = None
) -> tuple[Outcome, int]:
    """Rows of CORPUS for the lines of a JSONL manifest, and the number of lines read.

    A line is ``{"audio": path, "text": reference or null, "id": optional}``; ``audio`` is relative
    to the manifest, absolute, or ``s3://``. Lines that are no such object are rejected with
    ``no-json`` or ``no-audio``, an id that came before with ``duplicate-id``. Whether a recording
    can be read is found when it is transcribed. With ``domain``, only lines count that have it;
    with ``limit``, only so many of them: those whose hashes are lowest, the same in every run.

    Raises:
        DasError: the manifest cannot be read or has no such line.
    """
    rows: list[dict[str, Any]] = []
    rejects: list[Reject] = []
    seen: set[str] = set()
    entries = [(number, line, _entry(line)) for number, line in _lines(str(manifest))]
    if domain is not None:
        entries = [e for e in entries if isinstance(e[2], str) or e[2].get("domain") == domain]
    if limit is not None and limit < len(entries):
        entries = sorted(entries, key=lambda e: row_id(e[1]))[:limit]
        entries.sort(key=lambda e: e[0])
    for number, line, entry in entries:
        if isinstance(entry, str):
            rejects.append(Reject(f"{test_set}:{number}", entry, line[:200]))
            continue
        audio = str(entry["audio"])
        name = str(entry.get("id") or row_id(test_set, audio))
        if name in seen:
            rejects.append(Reject(f"{test_set}:{number}", "duplicate-id", name))
            continue
        seen.add(name)
        text = entry.get("text")
        rows.append(
            {
                "id": name,
                "test_set": test_set,
                "text": str(text) if text else None,
                "audio": None,
                "path": _audio_path(str(manifest), audio),
            }
        )
    if not entries:
        what = "is empty" if domain is None else f"has no line of domain {domain!r}"
        raise DasError(f"manifest {manifest} of test set {test_set!r} {what}; list recordings")
    return Outcome(pa.Table.from_pylist(rows, schema=CORPUS), rejects), len(entries)


def speech_corpus(speech: pa.Table, test_set: str, split: str | None = "test") -> pa.Table:
    """Rows of CORPUS for the utterances of SPEECH that are not for training (None: for all)."""
    if split is not None:
        speech = speech.filter(pc.field("split") == split)
    count = speech.num_rows
    columns = [
        speech["id"],
        pa.array([test_set] * count, pa.string()),
        speech["text"],
        speech["audio"],
        pa.nulls(count, pa.string()),
    ]
    return pa.table(columns, schema=CORPUS)


def _entry(line: str) -> dict[str, Any] | str:
    """The line's object, or the reason why it is none."""
    try:
        entry = json.loads(line)
    except json.JSONDecodeError:
        return "no-json"
    if not isinstance(entry, dict):
        return "no-json"
    return entry if entry.get("audio") else "no-audio"


def _audio_path(manifest: str, audio: str) -> str:
    if "://" in audio or audio.startswith("/"):
        return audio
    if "://" in manifest:
        return f"{manifest.rsplit('/', 1)[0]}/{audio}"
    return str(Path(manifest).resolve().parent / audio)


def _lines(manifest: str) -> Iterator[tuple[int, str]]:
    try:
        with fsspec.open(manifest, "rt", encoding="utf-8", errors="replace") as file:
            yield from enumerate(
                (line.strip() for line in file if line.strip()),  # type: ignore[attr-defined]
                start=1,
            )
    except OSError as error:
        raise DasError(
            f"manifest {manifest} cannot be read ({error.strerror or error}); a test set's "
            "manifest is a JSONL file of {audio, text}"
        ) from error
