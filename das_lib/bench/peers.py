"""`das bench peers`: this engine beside the public ones, same clips, greedy, no timestamps."""

import statistics
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import torch

from das_lib.adml import Adml, Fixed, Transcriber
from das_lib.adml.checkpoint import read_checkpoint
from das_lib.adml.linear import Precision
from das_lib.bench.faster_whisper import FasterWhisper
from das_lib.bench.material import write_adapters
from das_lib.bench.timing import measure, publish, ratio, spread
from das_lib.speech.audio import SAMPLE_RATE

MAX_NEW_TOKENS = 100
Subject = Callable[[], object]


def bench_peers(
    model_folder: Path, clips: Sequence[np.ndarray], *, batch: int, rounds: int, threads: int
) -> None:
    """Measure and publish one row an engine; the clips are decoded one after another."""
    audio = list(clips)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        adapters = write_adapters(folder / "adapters", read_checkpoint(model_folder).config, 3)
        das: dict[str, Subject] = {
            f"das {precision}": _das(model_folder, audio, precision, batch)
            for precision in ("float32", "bfloat16", "bfloat16-all")
        }
        das["das k=3 float32"] = _das(model_folder, audio, "float32", batch, adapters)

        def faster_whisper(dtype: str) -> Subject:
            peer = FasterWhisper(model_folder, folder, dtype, threads)
            return stack.enter_context(peer.one_by_one(audio, MAX_NEW_TOKENS))

        peers: dict[str, tuple[str, Subject]] = {
            "faster-whisper float32": ("das float32", faster_whisper("float32")),
            "faster-whisper int8": ("das bfloat16", faster_whisper("int8")),
            "transformers float32": ("das float32", _transformers(model_folder, audio, batch)),
            "peft adapter_names k=3 float32": (
                "das k=3 float32",
                _peft(model_folder, audio, adapters),
            ),
        }
        seconds = measure({**das, **{n: s for n, (_, s) in peers.items()}}, rounds=rounds)
    rows = []
    for name, times in seconds.items():
        engine, dtype = name.rsplit(" ", 1)
        against = peers[name][0] if name in peers else name
        rows.append(
            {
                "engine": engine,
                "dtype": dtype,
                "batch": batch if engine in ("das", "das k=3", "transformers") else 1,
                "ms_per_utterance": 1e3 * statistics.median(times) / len(audio),
                "against": against,
                "ratio": ratio(seconds[against], times),
                "spread": spread(times),
            }
        )
    publish(
        "peers",
        rows,
        ["ratio: time of the engine in `against` over this row's; below 1, `against` is faster."],
    )


def _das(
    model_folder: Path,
    audio: list[np.ndarray],
    precision: Precision,
    batch: int,
    adapters: dict[str, Path] | None = None,
) -> Subject:
    transcriber = Transcriber.from_pretrained(
        model_folder,
        adapters,
        precision=precision,
        language="en",
        max_new_tokens=MAX_NEW_TOKENS,
    )
    strategy = Adml() if adapters else Fixed(0)
    return lambda: transcriber.transcribe(audio, {"das": strategy}, batch_size=batch)


def _load(model_folder: Path) -> tuple[Any, Any]:
    from transformers import WhisperForConditionalGeneration, WhisperProcessor
    from transformers.utils import logging

    logging.disable_progress_bar()
    model = WhisperForConditionalGeneration.from_pretrained(str(model_folder)).eval()
    return model, WhisperProcessor.from_pretrained(str(model_folder))


def _generate(model: Any, processor: Any, clips: list[np.ndarray], **options: Any) -> None:
    mel = processor(clips, sampling_rate=SAMPLE_RATE, return_tensors="pt").input_features
    copies = len(options.get("adapter_names", clips)) // len(clips)
    with torch.inference_mode():
        ids = model.generate(
            input_features=mel.repeat_interleave(copies, 0),
            language="en",
            task="transcribe",
            do_sample=False,
            num_beams=1,
            max_new_tokens=MAX_NEW_TOKENS,
            **options,
        )
    processor.batch_decode(ids, skip_special_tokens=True)


def _transformers(model_folder: Path, audio: list[np.ndarray], batch: int) -> Subject:
    model, processor = _load(model_folder)

    def run() -> None:
        for at in range(0, len(audio), batch):
            _generate(model, processor, audio[at : at + batch])

    return run


def _peft(model_folder: Path, audio: list[np.ndarray], adapters: dict[str, Path]) -> Subject:
    """PEFT's mixed batch: a clip once for the base and once for each adapter."""
    from peft import PeftModel

    model, processor = _load(model_folder)
    for i, (name, folder) in enumerate(adapters.items()):
        if i == 0:
            model = PeftModel.from_pretrained(model, folder, adapter_name=name)
        else:
            model.load_adapter(folder, adapter_name=name)
    model.eval()
    names = ["__base__", *adapters]

    def run() -> None:
        for clip in audio:
            _generate(model, processor, [clip], adapter_names=names)

    return run
