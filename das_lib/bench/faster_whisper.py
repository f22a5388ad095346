"""faster-whisper as the benchmarks run it: greedy, beside this engine, in a process of its own."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from das_lib.bench.apart import apart
from das_lib.errors import DasError
from das_lib.speech.audio import Audio


def one_by_one(
    model_folder: Path,
    folder: Path,
    dtype: str,
    threads: int,
    clips: Sequence[Audio],
    max_new_tokens: int,
) -> AbstractContextManager[Callable[[], list[str]]]:
    """Transcribes all clips, one after another; the converted model stands in ``folder``.

    Raises:
        DasError: it is not installed.
    """
    return apart(_one_by_one, model_folder, folder, dtype, threads, clips, max_new_tokens)


def batched(
    model_folder: Path,
    folder: Path,
    dtype: str,
    threads: int,
    recordings: Sequence[Audio],
    batch: int,
) -> AbstractContextManager[Callable[[int], str]]:
    """Transcribes the recording of that number with faster-whisper's batched pipeline.

    Raises:
        DasError: it is not installed.
    """
    return apart(_batched, model_folder, folder, dtype, threads, recordings, batch)


def _load(model_folder: Path, folder: Path, dtype: str, threads: int) -> Any:
    try:
        from ctranslate2.converters import TransformersConverter
        from faster_whisper import WhisperModel
    except ImportError as error:
        raise DasError("this bench needs faster-whisper: pip install 'das-asr[bench]'") from error
    converted = folder / "ct2"
    if not converted.exists():
        files = ["tokenizer.json", "preprocessor_config.json"]
        TransformersConverter(str(model_folder), copy_files=files).convert(str(converted))
    return WhisperModel(str(converted), device="cpu", compute_type=dtype, cpu_threads=threads)


def _one_by_one(
    model_folder: Path,
    folder: Path,
    dtype: str,
    threads: int,
    clips: Sequence[Audio],
    max_new_tokens: int,
) -> Callable[[], list[str]]:
    model = _load(model_folder, folder, dtype, threads)

    def text(clip: Audio) -> str:
        segments, _ = model.transcribe(
            clip,
            language="en",
            beam_size=1,
            best_of=1,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            max_new_tokens=max_new_tokens,
            # No second look: no fall-back, no rejection of quiet clips.
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
        )
        return " ".join(segment.text for segment in segments)

    return lambda: [text(clip) for clip in clips]


def _batched(
    model_folder: Path,
    folder: Path,
    dtype: str,
    threads: int,
    recordings: Sequence[Audio],
    batch: int,
) -> Callable[[int], str]:
    model = _load(model_folder, folder, dtype, threads)
    from faster_whisper import BatchedInferencePipeline

    pipeline = BatchedInferencePipeline(model)

    def text(recording: int) -> str:
        segments, _ = pipeline.transcribe(
            recordings[recording], language="en", batch_size=batch, beam_size=1, temperature=0.0
        )
        return " ".join(segment.text for segment in segments)

    return text
