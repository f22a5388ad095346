"""`das bench adml`: the cost of k adapters in one pass, against none and against k + 1 passes.

Every decode makes the same number of passes: the tokens are prescribed, though each step chooses
one by the rule as ever, so the figures compare work and not the adapters' taste.
"""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from das_lib.adml import Adml, Fixed, Strategy, Transcriber
from das_lib.adml.checkpoint import read_checkpoint
from das_lib.adml.linear import Precision
from das_lib.bench.material import write_adapters
from das_lib.bench.prescribed import Prescribed
from das_lib.bench.timing import measure, publish, ratio, spread
from das_lib.speech.audio import SAMPLE_RATE

PAPER = {1: 0.102, 2: 0.077, 3: 0.094, 10: 0.184, 25: 0.848}
"""Relative increase of the real-time factor on a V100 (table VI), by k."""
FILLER = 64  # a letter, in every Whisper vocabulary


def bench_adml(
    model_folder: Path,
    clips: Sequence[np.ndarray],
    *,
    ks: Sequence[int],
    batches: Sequence[int],
    precision: Precision,
    device: str,
    passes: int,
    rounds: int,
    sequential: bool,
) -> None:
    """Measure and publish rows of k by batch."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        config = read_checkpoint(model_folder).config
        adapters = write_adapters(Path(folder), config, max(ks))
        for batch in batches:
            audio = list(clips[:batch])
            run = Run(model_folder, audio, passes, precision, device)
            subjects = {}
            for k in ks:
                transcriber = run.load(dict(list(adapters.items())[:k]))
                subjects[f"k={k}"] = run.one_pass(transcriber)
                if sequential and k:
                    subjects[f"k={k} sequential"] = run.one_by_one(transcriber, k)
            if "k=0" not in subjects:
                subjects["k=0"] = run.one_pass(run.load({}))
            seconds = measure(subjects, rounds=rounds)
            audio_s = sum(len(clip) for clip in audio) / SAMPLE_RATE
            rows += [row(k, batch, precision, seconds, passes, audio_s) for k in ks]
    notes = [
        f"log-mel and text inside; {passes} passes at every k; sequential: one encoder pass, then "
        "k + 1 decodes of one branch each.",
        "paper (table VI, V100), overhead: " + ", ".join(f"k={k} {v}" for k, v in PAPER.items()),
    ]
    publish("adml", rows, notes)


def row(
    k: int,
    batch: int,
    precision: str,
    seconds: dict[str, list[float]],
    passes: int,
    audio_s: float,
) -> dict[str, Any]:
    """Figures of one k at one batch size."""
    own, base = seconds[f"k={k}"], seconds["k=0"]
    alone = seconds.get(f"k={k} sequential", own if k == 0 else None)
    return {
        "k": k,
        "batch": batch,
        "dtype": precision,
        "window_s": 30,
        "ms_per_utterance": 1e3 * statistics.median(own) / batch,
        "ms_per_pass": 1e3 * statistics.median(own) / passes,
        "overhead": ratio(own, base) - 1,
        "sequential_ms": None if alone is None else 1e3 * statistics.median(alone) / batch,
        "sequential_ratio": None if alone is None else ratio(own, alone),
        "rtf": statistics.median(own) / audio_s,
        "spread": spread(own),
    }


class Run:
    """Engines over the same clips."""

    def __init__(
        self,
        model_folder: Path,
        audio: list[np.ndarray],
        passes: int,
        precision: Precision,
        device: str,
    ) -> None:
        self.audio, self.passes = audio, passes
        self._load = lambda adapters: Transcriber.from_pretrained(
            model_folder, adapters, precision=precision, device=device, language="en"
        )

    def load(self, adapters: dict[str, Path]) -> Transcriber:
        """An engine with these adapters."""
        return self._load(adapters)

    def strategy(self, transcriber: Transcriber, inner: Strategy) -> Strategy:
        """``inner`` over the prescribed tokens."""
        end = min(transcriber.engine.prompts.end)
        return Prescribed(inner, [FILLER] * (self.passes - 1), end)

    def one_pass(self, transcriber: Transcriber) -> Callable[[], object]:
        """All branches together, as the product decodes them."""
        strategies = {"das": self.strategy(transcriber, Adml())}
        return lambda: transcriber.transcribe_batch(self.audio, strategies)

    def one_by_one(self, transcriber: Transcriber, k: int) -> Callable[[], object]:
        """One encoder pass, then a decode for each branch alone."""
        strategies = {str(i): self.strategy(transcriber, Fixed(i)) for i in range(k + 1)}
        return lambda: transcriber.transcribe_batch(self.audio, strategies)
