"""What `das bench transcribe` measures: the bulk job, and the engine's batched loop alone."""

import multiprocessing
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from das_lib.bulk.hear import HearSettings, needs_times
from das_lib.config import Config, parse_config
from das_lib.memory import keep_freed_memory
from das_lib.speech.audio import SAMPLE_RATE, Audio, to_flac
from ray_jobs.measured import LOADING_S, SENTENCES, begin


def bench_config(
    model: str, precision: str, batch: int, replicas: int, num_cpus: int, folder: str
) -> Config:
    """A run whose replicas leave half a CPU to the readers."""
    pool = {"actors": replicas, "num_cpus": (num_cpus - 0.5) / replicas}
    return parse_config(
        {
            "name": "bench",
            "output": folder,
            "domains": [{"name": "bench", "utterances": 2, "texts": str(SENTENCES)}],
            "ray": {"num_cpus": num_cpus},
            "asr": {"model": model, "language": "en"},
            "decode": {"precision": precision},
            "serve": {"batch_utterances": batch, "pool": pool},
        }
    )


def write_corpus(clips: Sequence[Audio], count: int, folder: Path) -> None:
    """``count`` files that share the clips' content, in folders of a thousand."""
    first: list[Path] = []
    for i in range(count):
        path = folder / f"{i // 1000:04d}" / f"{i % 1000:03d}.flac"
        path.parent.mkdir(parents=True, exist_ok=True)
        if i < len(clips):
            path.write_bytes(to_flac(clips[i]))
            first.append(path)
        else:
            path.hardlink_to(first[i % len(clips)])


def pipeline_rtfx(
    config: Config, corpus: Path, adapters: Mapping[str, Path]
) -> tuple[float, float]:
    """Audio seconds a second of the bulk job once its replicas are there, and its batches' fill."""
    from ray_jobs.bulk import plan_bulk, transcribe_corpus

    with tempfile.TemporaryDirectory() as output:
        named = ",".join(f"{name}={folder}" for name, folder in adapters.items()) or "none"
        bulk = plan_bulk(config, str(corpus), output, named, ())
        summary = transcribe_corpus(bulk)
    fill = summary["windows_per_batch"] / config.serve.batch_utterances
    return summary["audio_hours"] * 3600 / summary["this_run"]["decoding_s"], fill


def bare_rtfx(
    config: Config, model: str, corpus: Path, adapters: Mapping[str, Path], count: int
) -> float:
    """Audio seconds a second of processes that read the same files and decode them in batches.

    As many processes as the job has replicas, with as many threads.
    """
    files = sorted(corpus.rglob("*.flac"))[:count]
    actors = config.serve.pool.actors
    barrier = multiprocessing.get_context("spawn").Barrier(actors)
    waiting = [
        begin(_bare, config, model, files[place::actors], dict(adapters), barrier)
        for place in range(actors)
    ]
    results = [end() for end in waiting]
    return sum(audio for audio, _ in results) / max(seconds for _, seconds in results)


def _bare(
    config: Config,
    model: str,
    files: list[Path],
    adapters: dict[str, Path],
    barrier: Any,
    answer: Connection,
) -> None:
    import torch

    from das_lib.adml import Fixed, Transcriber, named_strategy
    from das_lib.bulk.media import decode
    from das_lib.bulk.vad import Vad
    from das_lib.bulk.windows import Windows

    keep_freed_memory()  # as replicas do
    torch.set_num_threads(config.serve.pool.threads)
    transcriber = Transcriber.from_pretrained(
        Path(model), adapters, precision=config.decode.precision, language="en"
    )
    tau: Any = config.adml.tau
    strategy = named_strategy(config.adml.strategy, tau=tau) if adapters else Fixed(0)
    vad, settings, batch = Vad.from_package(), HearSettings(), config.serve.batch_utterances

    def run(part: list[Path]) -> float:
        seconds = 0.0
        for at in range(0, len(part), batch):
            found = []
            for path in part[at : at + batch]:
                with path.open("rb") as file:
                    windows = Windows(decode(file), vad, settings.windows)
                    found += list(windows)
                seconds += windows.num_samples / SAMPLE_RATE
            transcriber.transcribe(
                [window.audio for window in found],
                {"das": strategy},
                batch_size=batch,
                word_times=[needs_times(window) for window in found],
            )
        return seconds

    run(files[:batch])
    barrier.wait(LOADING_S)
    started = time.perf_counter()
    seconds = run(files)
    answer.send((seconds, time.perf_counter() - started))
