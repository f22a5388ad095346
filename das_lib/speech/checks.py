"""What a synthetic recording must be; a voice that stumbles must not train an adapter."""

import numpy as np

from das_lib.speech.audio import MAX_SECONDS, SAMPLE_RATE, SILENCE_PEAK, Audio

MIN_SECONDS_PER_CHARACTER = 0.02
MAX_SECONDS_PER_CHARACTER = 0.4
PAUSE_SECONDS = 1.5  # what a voice may add around a short text
MAX_CLIPPED = 0.01  # part of the samples at full scale
FRAME = SAMPLE_RATE // 100
SILENT_DB = 40
"""Frames so far below the speech (the 95th percentile of all) are silent."""
MAX_SILENCE_SECONDS = 2.0  # a voice pauses for less, between two sentences too
ENDING_FRAMES, ENDING_DB = 3, 12
"""Speech that is still so near its full level in the last 30 ms was cut off: a voice
fades."""


def check_speech(audio: Audio, text: str) -> tuple[str, str] | None:
    """Reason code and detail if the recording ([samples], 16 kHz) cannot be speech of the text."""
    if not len(audio):
        return "empty-audio", "the voice said nothing"
    if not np.isfinite(audio).all():
        return "not-audio", "samples that are not finite"
    if np.abs(audio).max() < SILENCE_PEAK:
        return "silent", "peak below -60 dBFS"
    clipped = float(np.mean(np.abs(audio) >= 0.999))
    if clipped > MAX_CLIPPED:
        return "clipped", f"{clipped:.1%} of the samples at full scale, bound {MAX_CLIPPED:.0%}"
    seconds, characters = len(audio) / SAMPLE_RATE, max(len(text.strip()), 1)
    if seconds > MAX_SECONDS:
        return "too-long-audio", f"{seconds:.1f} s, bound {MAX_SECONDS} s"
    longest = characters * MAX_SECONDS_PER_CHARACTER + PAUSE_SECONDS
    if seconds < characters * MIN_SECONDS_PER_CHARACTER:
        return "too-fast", f"{seconds:.2f} s for {characters} characters"
    if seconds > longest:
        return "too-slow", f"{seconds:.2f} s for {characters} characters, bound {longest:.2f} s"
    return _shape(audio)


def _shape(audio: Audio) -> tuple[str, str] | None:
    """What the level over time tells."""
    if len(audio) < FRAME * ENDING_FRAMES:
        return "too-short-audio", f"{len(audio)} samples"
    frames = audio[: len(audio) // FRAME * FRAME].reshape(-1, FRAME)
    level_db = 20 * np.log10(np.sqrt(np.mean(np.square(frames), axis=1)) + 1e-7)
    full_db = float(np.percentile(level_db, 95))
    edges = [-1, *np.flatnonzero(level_db > full_db - SILENT_DB), len(level_db)]
    silence = (int(np.max(np.diff(edges))) - 1) * FRAME / SAMPLE_RATE
    if silence > MAX_SILENCE_SECONDS:
        return "long-silence", f"{silence:.1f} s, bound {MAX_SILENCE_SECONDS} s"
    below_db = full_db - float(np.mean(level_db[-ENDING_FRAMES:]))
    if below_db < ENDING_DB:
        return "cut-off", f"ends {below_db:.0f} dB below the speech, bound {ENDING_DB} dB"
    return None
