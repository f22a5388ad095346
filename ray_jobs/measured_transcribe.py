"""What `das bench transcribe` measures: the bulk job, and the engine's batched loop alone."""

import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from das_lib.bulk.hear import HearSettings
from das_lib.config import Config, parse_config
from das_lib.speech.audio import SAMPLE_RATE, Audio, to_flac
from ray_jobs.measured import SENTENCES, begin, steady_rate


def bench_config(model: str, precision: str, batch: int, num_cpus: int, folder: str) -> Config:
    """A run of one replica that leaves half a CPU to the readers."""
    return parse_config(
        {
            "name": "bench",
            "output": folder,
            "domains": [{"name": "bench", "utterances": 2, "texts": str(SENTENCES)}],
            "ray": {"num_cpus": num_cpus},
            "asr": {"model": model, "language": "en"},
            "decode": {"precision": precision},
            "serve": {"batch_utterances": batch, "pool": {"num_cpus": num_cpus - 0.5}},
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
    """Audio seconds a second of the bulk job once all its readers work, and its batches' fill."""
    from das_lib.dataset import open_parquet
    from ray_jobs.bulk import plan_bulk, transcribe_corpus

    with tempfile.TemporaryDirectory() as output:
        named = ",".join(f"{name}={folder}" for name, folder in adapters.items()) or "none"
        bulk = plan_bulk(config, str(corpus), output, named, ())
        summary = transcribe_corpus(bulk)
        commits = []
        for path in bulk.transcripts.files():
            seconds = sum(open_parquet(path).read(["duration_s"])["duration_s"].to_pylist())
            commits.append((Path(path).stat().st_mtime, seconds))
    fill = summary["windows_per_batch"] / config.serve.batch_utterances
    return steady_rate(commits, config.transcribe.readers), fill


def bare_rtfx(
    config: Config, model: str, corpus: Path, adapters: Mapping[str, Path], count: int
) -> float:
    """Audio seconds a second of a process that reads the same files and decodes them in batches."""
    return begin(_bare, config, model, sorted(corpus.rglob("*.flac"))[:count], dict(adapters))()


def _bare(
    config: Config, model: str, files: list[Path], adapters: dict[str, Path], answer: Connection
) -> None:
    import torch

    from das_lib.adml import Fixed, Transcriber, named_strategy
    from das_lib.bulk.media import decode
    from das_lib.bulk.vad import Vad
    from das_lib.bulk.windows import Windows

    torch.set_num_threads(math.ceil(config.serve.pool.num_cpus))
    transcriber = Transcriber.from_pretrained(
        Path(model), adapters, precision=config.decode.precision, language="en"
    )
    tau: Any = config.adml.tau
    strategy = named_strategy(config.adml.strategy, tau=tau) if adapters else Fixed(0)
    vad, settings, batch = Vad.from_package(), HearSettings(), config.serve.batch_utterances

    def run(part: list[Path]) -> float:
        seconds = 0.0
        for at in range(0, len(part), batch):
            audio = []
            for path in part[at : at + batch]:
                with path.open("rb") as file:
                    windows = Windows(decode(file), vad, settings.windows)
                    audio += [window.audio for window in windows]
                seconds += windows.num_samples / SAMPLE_RATE
            transcriber.transcribe(audio, {"das": strategy}, batch_size=batch)
        return seconds

    run(files[:batch])
    started = time.perf_counter()
    seconds = run(files)
    answer.send(seconds / (time.perf_counter() - started))
