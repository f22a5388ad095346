"""When a transcript is doubtful; the bounds are openai/whisper's."""

import zlib

MAX_COMPRESSION_RATIO = 2.4
"""Bytes of text per byte that zlib makes of it; above, the text repeats itself."""
MIN_AVG_LOGPROB = -1.0
"""Mean log-probability of the tokens; below, the text is a guess."""
NO_SPEECH_PROB = 0.6
"""Probability of no speech; above it, an unlikely text is made up."""


def compression_ratio(text: str) -> float:
    """Bytes of text per byte that zlib makes of it; 1 for no text."""
    data = text.encode()
    return len(data) / len(zlib.compress(data)) if data else 1.0
