"""`das bench modes`: what each mode that may change tokens costs in words and saves in time."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from das_lib.adml import Adml, Fallback, Transcriber
from das_lib.bench.parity import edits, wer
from das_lib.bench.timing import measure, publish, ratio, spread
from das_lib.errors import Reject

EXACT = "float32"
MODES: dict[str, dict[str, Any]] = {
    EXACT: {},
    "bfloat16": {"precision": "bfloat16"},
    "bfloat16-all": {"precision": "bfloat16-all"},
    "int8": {"precision": "int8"},
    "lookahead: 6": {"lookahead": 6},  # where utterances are decoded alone: --batch 1
    "window: clip + 2 s": {"margin_s": 2.0},
    "fall-back": {"fallback": Fallback()},
    "beams: 5": {"beams": 5},
    "word times": {"word_times": True},
}


def bench_modes(
    model_folder: Path,
    clips: Sequence[np.ndarray],
    references: Sequence[str],
    adapters: Mapping[str, Path],
    *,
    tau: float,
    batch: int,
    rounds: int,
) -> None:
    """Measure and publish one row a mode."""
    texts: dict[str, list[str]] = {}
    tokens: dict[str, list[list[int]]] = {}

    def subject(mode: str, options: dict[str, Any]) -> Callable[[], object]:
        transcriber = Transcriber.from_pretrained(model_folder, adapters, language="en", **options)

        def run() -> None:
            rows = transcriber.transcribe(list(clips), {"das": Adml(tau=tau)}, batch_size=batch)
            results = [row["das"] for row in rows if not isinstance(row, Reject)]
            texts[mode] = [result.text for result in results]
            tokens[mode] = [result.tokens for result in results]

        return run

    subjects = {mode: subject(mode, options) for mode, options in MODES.items()}
    seconds = measure(subjects, rounds=rounds, warmup=0)
    wanted = tokens[EXACT]
    total = sum(len(w) for w in wanted)
    rows = [
        {
            "mode": mode,
            "k": len(adapters),
            "batch": batch,
            "utterances": len(clips),
            "wer": wer(references, texts[mode]),
            "wer_change": wer(references, texts[mode]) - wer(references, texts[EXACT]),
            "agreement": 1 - sum(map(edits, tokens[mode], wanted)) / total,
            "ms_per_utterance": 1e3 * statistics.median(times) / len(clips),
            "ratio": ratio(times, seconds[EXACT]),
            "spread": spread(times),
        }
        for mode, times in seconds.items()
    ]
    publish("modes", rows, ["ratio: time over that of the exact mode, float32."])
