"""`das bench adml --profile`: where the time of an utterance goes."""

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from das_lib.adml import Adml, Transcriber
from das_lib.adml.checkpoint import read_checkpoint
from das_lib.adml.linear import Precision
from das_lib.bench.adml import Run
from das_lib.bench.material import write_adapters
from das_lib.bench.timing import publish, synchronize


class Stopwatch:
    """Adds up the seconds of functions that it stands in for."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    def wrap(self, owner: Any, name: str, part: str) -> None:
        """Time ``owner.name`` as ``part`` from now on."""
        setattr(owner, name, self.timed(getattr(owner, name), part))

    def timed(self, function: Callable[..., Any], part: str) -> Callable[..., Any]:
        """The function, timed."""

        def call(*args: Any, **options: Any) -> Any:
            started = time.perf_counter()
            value = function(*args, **options)
            synchronize()
            self.seconds[part] = self.seconds.get(part, 0.0) + time.perf_counter() - started
            return value

        return call


def bench_profile(
    model_folder: Path,
    clips: Sequence[np.ndarray],
    *,
    ks: Sequence[int],
    batches: Sequence[int],
    precision: Precision,
    device: str,
    passes: int,
    rounds: int,
) -> None:
    """Measure and publish rows of k by batch by part."""
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        config = read_checkpoint(model_folder).config
        adapters = list(write_adapters(Path(folder), config, max(ks)).items())
        for batch in batches:
            for k in ks:
                run = Run(model_folder, list(clips[:batch]), passes, precision, device)
                transcriber = run.load(dict(adapters[:k]))
                parts = [_profile(run, transcriber) for _ in range(rounds + 1)][1:]
                total = statistics.median(sum(p.values()) for p in parts)
                for part in parts[0]:
                    seconds = statistics.median(p[part] for p in parts)
                    rows.append(
                        {
                            "k": k,
                            "batch": batch,
                            "dtype": precision,
                            "part": part,
                            "ms_per_utterance": 1e3 * seconds / batch,
                            "share": seconds / total,
                        }
                    )
    publish("adml-profile", rows, ["steps: decoder layers; other: bookkeeping between the parts."])


def _profile(run: Run, transcriber: Transcriber) -> dict[str, float]:
    """Seconds by part of one call."""
    watch = Stopwatch()
    engine, strategy = transcriber.engine, run.strategy(transcriber, Adml())
    replaced = [
        (transcriber, "features", "mel"),
        (engine, "encode", "encoder"),
        (engine, "memory", "cross-KV"),
        (engine.decoder, "start", "adapters' prefill"),
        (engine.decoder, "forward", "steps"),
        (engine._first, "scores", "vocabulary"),
        (engine._rest, "scores", "vocabulary"),
        (strategy, "choose", "selection"),
        (transcriber, "result", "text"),
    ]
    if engine._replays is not None:  # steps, vocabulary and selection in one
        replaced = [*replaced[:3], (engine._replays, "decode", "passes"), replaced[-1]]
    for owner, name, part in replaced:
        watch.wrap(owner, name, part)
    try:
        started = time.perf_counter()
        transcriber.transcribe_batch(run.audio, {"das": strategy})
        synchronize()
        whole = time.perf_counter() - started
    finally:
        for owner, name, _ in replaced:
            delattr(owner, name)  # the class's own shows again
    return {**watch.seconds, "other": whole - sum(watch.seconds.values())}
