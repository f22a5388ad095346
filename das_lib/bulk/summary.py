"""What a bulk transcription did: everything that went in, accounted for."""

# pyarrow.compute makes its functions when it is imported, so pyright sees none of them.
# pyright: reportAttributeAccessIssue=false

from collections import Counter
from collections.abc import Iterator
from typing import Any

import pyarrow.compute as pc

from das_lib.bulk.corpus import count_rows
from das_lib.dataset import Dataset
from das_lib.errors import StorageError


def summarise(recordings: Dataset, transcripts: Dataset) -> dict[str, Any]:
    """Counts over all that was ever transcribed into an output, a file at a time.

    Raises:
        StorageError: recordings are missing, or there are more transcripts than recordings.
    """
    listed, unlisted = count_rows(recordings)
    out, failed = count_rows(transcripts)
    if listed != out + failed:
        raise StorageError(
            f"{transcripts.folder}: {listed} recordings were listed, {out} have a transcript and "
            f"{failed} were rejected; run the same command again, and if that does not help, move "
            f"{transcripts.folder} away"
        )
    guards: Counter[str] = Counter()
    words: Counter[str] = Counter()
    audio_s = speech_s = batches = 0.0
    windows = empty = 0
    for table in transcripts.tables():
        audio_s += pc.sum(table["duration_s"]).as_py() or 0.0
        speech_s += pc.sum(table["speech_s"]).as_py() or 0.0
        windows += pc.sum(table["windows"]).as_py() or 0
        batches += pc.sum(table["batches"]).as_py() or 0.0
        guards.update(table["guards"].combine_chunks().flatten().to_pylist())
        words.update(_adapters(table))
        empty += pc.sum(pc.equal(table["text"], "")).as_py() or 0
    reasons = recordings.reasons() + transcripts.reasons()
    count = sum(words.values())
    return {
        "in": listed + unlisted,
        "out": out,
        "rejected": unlisted + failed,
        "reasons": dict(sorted(reasons.items())),
        "empty": empty,
        "audio_hours": audio_s / 3600,
        "speech_hours": speech_s / 3600,
        "windows": windows,
        "windows_per_batch": windows / batches if batches else None,
        "guards": dict(sorted(guards.items())),
        "words": count,
        "share_of_words": {name: number / count for name, number in words.most_common()},
    }


def _adapters(table: Any) -> Iterator[str]:
    """The adapter of each word."""
    segments = table["segments"].combine_chunks().flatten()
    words = pc.list_flatten(pc.struct_field(segments, "words"))
    yield from pc.struct_field(words, "adapter").to_pylist()
