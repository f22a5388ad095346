"""Training speech as a far microphone would hear it: another pace, a room, noise.

One synthetic voice in silence teaches an adapter that voice in silence. Each version of an
utterance is perturbed by itself, seeded by its id, so a resumed run makes the same versions.
"""

from collections.abc import Callable, Sequence

import numpy as np
import pyarrow as pa
import soxr
from scipy.signal import fftconvolve

from das_lib.config.tree import Augment
from das_lib.ids import row_id, version_id
from das_lib.speech.audio import MAX_SAMPLES, SAMPLE_RATE, Audio, AudioError, read_audio, to_flac

TALKERS = (4, 8)
"""Voices in a babble, from and to."""
FRAMES_PER_SECOND = 100  # of Whisper's log-mel
TAIL_S = 0.2
"""How long the room rings after the last word, at most."""


class Augmenter:
    """Rows of SPEECH to rows of SPEECH: ``versions`` of each, some as they are, some perturbed."""

    def __init__(self, augment: Augment, seed: int) -> None:
        self.augment, self.seed = augment, seed

    def __call__(self, speech: pa.Table) -> pa.Table:
        """Version 0 has the id of its row, version v the id ``<id>#v``.

        Babble is made of the table's other recordings. A recording that cannot be read, or that
        would become longer than a window, stays as it is.
        """
        if self.augment.versions == 1 and not self.augment.part:
            return speech
        rows = speech.to_pylist()
        clips = [_clip(row["audio"]) for row in rows]
        out = []
        for index, (row, clip) in enumerate(zip(rows, clips, strict=True)):
            others = [c for i, c in enumerate(clips) if i != index and c is not None]
            for version in range(self.augment.versions):
                name = version_id(row["id"], version)
                out.append({**row, "id": name})
                rng = seeded(name, self.seed)
                if clip is None or rng.random() >= self.augment.part:
                    continue
                heard = perturb(clip, others, self.augment, rng)
                if len(heard) <= MAX_SAMPLES:
                    out[-1] |= {"audio": to_flac(heard), "num_samples": len(heard)}
        return pa.Table.from_pylist(out, schema=speech.schema)

    def mask(self, log_mel: np.ndarray, version: str, seconds: float) -> None:
        """Blank parts of a version's log-mel spectrogram, in place (SpecAugment, Park 2019).

        Args:
            log_mel: [F, T] of the whole window.
            version: Id of the version.
            seconds: How long it speaks; nothing behind is blanked, for there is nothing.
        """
        augment, rng = self.augment, seeded(f"mask {version}", self.seed)
        bins, frames = len(log_mel), max(1, round(seconds * FRAMES_PER_SECOND))
        mean = log_mel[:, :frames].mean()
        for _ in range(augment.time_masks):
            width = rng.uniform(0, min(augment.time_mask_s * FRAMES_PER_SECOND, frames))
            start = rng.uniform(0, frames - width)
            log_mel[:, round(start) : round(start + width)] = mean
        for _ in range(augment.mel_masks):
            width = rng.integers(0, min(augment.mel_mask_bins, bins), endpoint=True)
            start = rng.integers(0, bins - width, endpoint=True)
            log_mel[start : start + width, :frames] = mean


def seeded(version: str, seed: int) -> np.random.Generator:
    """The generator of one version: the same in every run, on every machine."""
    return np.random.default_rng(int(row_id(version, str(seed)), 16))


def perturb(
    clip: Audio, others: Sequence[Audio], augment: Augment, rng: np.random.Generator
) -> Audio:
    """One recording at another pace, in a room, in noise, as far as ``augment`` says.

    Args:
        clip: [samples] at 16 kHz.
        others: Recordings to make babble of; where there are none, the noise is pink.
        augment: Ranges, from which each value is drawn evenly.
        rng: Draws them.

    Returns:
        [samples], no louder than full scale.
    """
    heard = change_pace(clip, rng.uniform(*augment.pace))
    if augment.rt60_s is not None:
        rt60_s = rng.uniform(*augment.rt60_s)
        response = room_response(rt60_s, rng.uniform(*augment.direct_db), rng)
        length = len(heard) + round(min(TAIL_S, rt60_s) * SAMPLE_RATE)
        heard = fftconvolve(heard, response)[:length]
    if augment.snr_db is not None:
        kinds: dict[str, Callable[[], np.ndarray]] = {
            "pink": lambda: pink_noise(len(heard), rng),
            "babble": lambda: babble(len(heard), others, rng),
        }
        kind = augment.noises[int(rng.integers(len(augment.noises)))] if others else "pink"
        heard = add_noise(heard, kinds[kind](), rng.uniform(*augment.snr_db))
    return (heard / max(1.0, float(np.abs(heard).max()))).astype(np.float32)


def change_pace(clip: Audio, pace: float) -> Audio:
    """Faster (above 1) and higher, as a tape is; ``pace`` times shorter."""
    if pace == 1:
        return clip
    return soxr.resample(clip, pace * SAMPLE_RATE, SAMPLE_RATE, quality="HQ")


def room_response(rt60_s: float, direct_db: float, rng: np.random.Generator) -> np.ndarray:
    """Impulse response: the direct sound, then noise that fades by 60 dB in ``rt60_s`` seconds.

    Args:
        rt60_s: Reverberation time.
        direct_db: Energy of the direct sound over that of all that follows.
        rng: Draws the noise.
    """
    time_s = np.arange(1, max(2, round(rt60_s * SAMPLE_RATE))) / SAMPLE_RATE
    tail = rng.standard_normal(len(time_s)) * 10 ** (-3 * time_s / rt60_s)
    tail *= 10 ** (-direct_db / 20) / np.sqrt(np.sum(tail**2))
    return np.concatenate([[1.0], tail])


def pink_noise(length: int, rng: np.random.Generator) -> np.ndarray:
    """Noise whose power falls by 3 dB an octave, [samples]."""
    spectrum = np.fft.rfft(rng.standard_normal(length))
    hertz = np.fft.rfftfreq(length, 1 / SAMPLE_RATE)
    return np.fft.irfft(spectrum / np.sqrt(np.maximum(hertz, 20)), length)


def babble(length: int, voices: Sequence[Audio], rng: np.random.Generator) -> np.ndarray:
    """Several recordings at once, each at its own pace and from its own point on, [samples]."""
    total = np.zeros(length)
    for _ in range(rng.integers(TALKERS[0], TALKERS[1] + 1)):
        voice = change_pace(voices[int(rng.integers(len(voices)))], rng.uniform(0.75, 1.3))
        voice = np.roll(voice, rng.integers(len(voice))) / max(1e-9, np.sqrt(np.mean(voice**2)))
        total += np.resize(voice, length)
    return total


def add_noise(clip: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Mix so that the recording has ``snr_db`` more power than the noise."""
    wanted = np.mean(clip**2) * 10 ** (-snr_db / 10)
    return clip + noise * np.sqrt(wanted / max(1e-12, float(np.mean(noise**2))))


def _clip(audio: bytes) -> Audio | None:
    try:
        return read_audio(audio)
    except AudioError:
        return None  # the encoder's stage rejects it, with a reason
