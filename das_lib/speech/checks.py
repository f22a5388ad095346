"""What a synthetic recording must be; a voice that stumbles must not train an adapter."""

import numpy as np

from das_lib.speech.audio import MAX_SECONDS, SAMPLE_RATE, SILENCE_PEAK, Audio

MIN_SECONDS_PER_CHARACTER = 0.02
MAX_SECONDS_PER_CHARACTER = 0.4
PAUSE_SECONDS = 1.5  # what a voice may add around a short text
MAX_CLIPPED = 0.01  # part of the samples at full scale


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
    return None
