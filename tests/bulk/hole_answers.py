"""Windows, and what was heard in them, for tests of holes."""

from dataclasses import replace
from itertools import pairwise

import numpy as np

from das_lib.bulk.pack import Piece, Window
from das_lib.bulk.vad import Region

RATE = 16_000


def window(*seconds):
    """A window of pieces that long, a minute apart in the recording."""
    pieces, at = [], 0
    for number, length in enumerate(seconds):
        start = (60 * number + 10) * RATE
        pieces.append(Piece(start, start + round(length * RATE), at))
        at += round(length * RATE)
    return Window(tuple(pieces), np.arange(at, dtype=np.float32))


def answer(*words, text=None, language="en", avg_logprob=-0.2, no_speech_prob=None):
    """An answer of (text, start, end), in seconds of the window."""
    return {
        "text": " ".join(word[0] for word in words) if text is None else text,
        "language": language,
        "avg_logprob": avg_logprob,
        "no_speech_prob": no_speech_prob,
        "temperature": 0.0,
        "words": [
            {"text": word, "branch": 0, "confidence": 0.9, "start_s": start, "end_s": end}
            for word, start, end in words
        ],
    }


def spoken(text, start=0.0, end=15.0, **options):
    """An answer of the text's words, one right after the other."""
    words = text.split()
    times = pairwise(np.linspace(start, end, len(words) + 1).tolist())
    return answer(*((word, *time) for word, time in zip(words, times, strict=True)), **options)


def times(answer):
    return [(word["text"], word["start_s"], word["end_s"]) for word in answer["words"]]


def paused(*regions, seconds=10):
    """A window of that length with speech in it, by begin and end."""
    whole = window(seconds)
    start = whole.pieces[0].start
    speech = tuple(Region(start + round(a * RATE), start + round(b * RATE)) for a, b in regions)
    return replace(whole, speech=speech)
