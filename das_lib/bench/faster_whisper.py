"""faster-whisper as the benchmarks run it: greedy, beside this engine, in a process of its own."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from das_lib.bench.apart import apart
from das_lib.errors import DasError
from das_lib.speech.audio import Audio


@dataclass(frozen=True, slots=True)
class FasterWhisper:
    """One of its models; what it makes is to be entered, and is called here then."""

    model_folder: Path
    """As this engine reads it."""
    folder: Path
    """Where the converted model stands, made once for all that share it."""
    dtype: str
    threads: int

    def one_by_one(
        self, clips: Sequence[Audio], max_new_tokens: int
    ) -> AbstractContextManager[Callable[[], list[str]]]:
        """Transcribes all clips, one after another.

        Raises:
            DasError: it is not installed.
        """
        return apart(_one_by_one, self, clips, max_new_tokens)

    def batched(
        self, recordings: Sequence[Audio], batch: int
    ) -> AbstractContextManager[Callable[[int], str]]:
        """Transcribes the recording of that number with its batched pipeline.

        Raises:
            DasError: it is not installed.
        """
        return apart(_batched, self, recordings, batch)

    def load(self) -> Any:
        """Its model, in this process."""
        try:
            from ctranslate2.converters import TransformersConverter
            from faster_whisper import WhisperModel
        except ImportError as error:
            raise DasError(
                "this bench needs faster-whisper: pip install 'das-asr[bench]'"
            ) from error
        converted = self.folder / "ct2"
        if not converted.exists():
            files = ["tokenizer.json", "preprocessor_config.json"]
            converter = TransformersConverter(str(self.model_folder), copy_files=files)
            converter.convert(str(converted))
        options = {"compute_type": self.dtype, "cpu_threads": self.threads}
        return WhisperModel(str(converted), device="cpu", **options)


def _one_by_one(
    peer: FasterWhisper, clips: Sequence[Audio], max_new_tokens: int
) -> Callable[[], list[str]]:
    model = peer.load()

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


def _batched(peer: FasterWhisper, recordings: Sequence[Audio], batch: int) -> Callable[[int], str]:
    model = peer.load()
    from faster_whisper import BatchedInferencePipeline

    pipeline = BatchedInferencePipeline(model)

    def text(recording: int) -> str:
        segments, _ = pipeline.transcribe(
            recordings[recording], language="en", batch_size=batch, beam_size=1, temperature=0.0
        )
        return " ".join(segment.text for segment in segments)

    return text
