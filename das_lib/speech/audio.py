"""Recordings in memory: mono float32 in [-1, 1] at 16 kHz, from and to files.

Time is counted in samples inside; seconds appear at the edges only.
"""

import io
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import soundfile
import soxr

if TYPE_CHECKING:
    import pyloudnorm

SAMPLE_RATE = 16_000  # Hz, what Whisper hears
MAX_SECONDS = 30  # one Whisper window
MAX_SAMPLES = SAMPLE_RATE * MAX_SECONDS
LOUDNESS_BLOCK = round(0.4 * SAMPLE_RATE)
SILENCE_PEAK = 10 ** (-60 / 20)  # -60 dBFS

Audio = npt.NDArray[np.float32]


class AudioError(ValueError):
    """A recording that cannot be used; ``reason`` is the code of its rejection."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason, self.detail = reason, detail


def read_audio(source: bytes | str | Path) -> Audio:
    """Decode a file or its bytes (WAV, FLAC, OGG, MP3, ...) to mono 16 kHz, shape [samples].

    Raises:
        AudioError: ``missing-audio``, ``not-audio``, ``empty-audio`` or ``silent``.
    """
    if not isinstance(source, bytes) and not Path(source).is_file():
        raise AudioError("missing-audio", str(source))
    label = "bytes" if isinstance(source, bytes) else str(source)
    try:
        with soundfile.SoundFile(io.BytesIO(source) if isinstance(source, bytes) else source) as f:
            frames, rate = f.read(dtype="float32", always_2d=True), f.samplerate
    except (soundfile.LibsndfileError, OSError, ValueError, TypeError) as error:
        raise AudioError("not-audio", f"{label}: {error}") from error
    if not len(frames):
        raise AudioError("empty-audio", label)
    audio = resample(frames.mean(axis=1), rate)
    if not np.isfinite(audio).all():
        raise AudioError("not-audio", f"{label}: samples that are not finite")
    if np.abs(audio).max() < SILENCE_PEAK:
        raise AudioError("silent", f"{label}: peak below -60 dBFS")
    return audio


def resample(audio: npt.NDArray[np.floating], rate_hz: int) -> Audio:
    """To 16 kHz, very high quality; ``audio`` has shape [samples]."""
    if rate_hz == SAMPLE_RATE:
        return np.ascontiguousarray(audio, dtype=np.float32)
    return soxr.resample(audio.astype(np.float32), rate_hz, SAMPLE_RATE, quality="VHQ")


def to_flac(audio: Audio) -> bytes:
    """Mono 16-bit FLAC file of a 16 kHz recording; lossless from 16-bit samples on."""
    buffer = io.BytesIO()
    pcm = np.clip(np.round(audio * 32767), -32768, 32767).astype(np.int16)
    soundfile.write(buffer, pcm, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def loudness(audio: Audio) -> float | None:
    """Integrated loudness of a 16 kHz recording, LUFS (ITU-R BS.1770); None below 0.4 s."""
    if len(audio) <= LOUDNESS_BLOCK:
        return None
    value = float(_meter().integrated_loudness(audio))
    return value if np.isfinite(value) else None


@cache
def _meter() -> "pyloudnorm.Meter":
    import pyloudnorm  # with it comes scipy.signal: seconds, for who only reads recordings

    return pyloudnorm.Meter(SAMPLE_RATE)
