"""The worker that hands recordings to the replicas; it needs no torch, which is slow to import."""

from collections.abc import Mapping
from typing import Any

import pyarrow as pa
from ray import serve

from das_lib.errors import Reject
from das_lib.rows import Outcome
from das_lib.speech.audio import SAMPLE_RATE, Audio, AudioError, read_audio
from das_lib.storage import Folder
from schemas.transcripts import TRANSCRIPTS


class Feed:
    """Work: decodes a block's recordings, has the replicas transcribe them, makes the rows."""

    def __init__(self, app: str, systems: Mapping[str, str], branches: tuple[str, ...]) -> None:
        self.systems, self.branches = systems, branches
        self.replicas = serve.get_app_handle(app)

    def __call__(self, rows: pa.Table, outputs: list[str]) -> Mapping[str, Outcome]:
        """Rows of CORPUS to rows of TRANSCRIPTS for each output."""
        recordings = rows.to_pylist()
        loaded = [_load(row) for row in recordings]
        wanted = tuple(self.systems[output] for output in outputs)
        pending = [
            None
            if isinstance(audio, Reject)
            else self.replicas.transcribe.remote((audio, wanted, False, None))
            for audio in loaded
        ]
        good: dict[str, list[dict[str, Any]]] = {output: [] for output in outputs}
        rejects: list[Reject] = []
        seconds = 0.0
        for row, audio, answer in zip(recordings, loaded, pending, strict=True):
            if isinstance(audio, Reject):
                rejects.append(audio)
                continue
            results = answer.result()  # type: ignore[union-attr]
            if isinstance(results, Reject):
                rejects.append(Reject(row["id"], results.reason, results.detail))
                continue
            seconds += len(audio) / SAMPLE_RATE
            for output in outputs:
                system = self.systems[output]
                heard = {"system": system, "num_samples": len(audio), **results[system]}
                good[output].append(self._row(row, heard))
        return {
            output: Outcome(
                pa.Table.from_pylist(good[output], schema=TRANSCRIPTS),
                rejects,
                seconds / len(outputs),
            )
            for output in outputs
        }

    def _row(self, row: dict[str, Any], heard: dict[str, Any]) -> dict[str, Any]:
        return {
            "id": row["id"],
            "test_set": row["test_set"],
            "reference": row["text"],
            **heard,
            "branches": [self.branches[branch] for branch in heard["branches"]],
        }


def _load(row: dict[str, Any]) -> Audio | Reject:
    try:
        source = row["audio"] or row["path"]
        if isinstance(source, str) and "://" in source:
            parent, name = source.rsplit("/", 1)
            source = Folder(parent).read(name)
        return read_audio(source)
    except AudioError as error:
        return Reject(row["id"], error.reason, error.detail)
    except ValueError as error:  # a StorageError: the recording is out of reach
        return Reject(row["id"], "missing-audio", str(error))
