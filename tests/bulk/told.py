"""A VAD that says what it was told, for tests of what is made of it."""

import numpy as np

from das_lib.bulk.vad import FRAME
from das_lib.speech.audio import SAMPLE_RATE


class ToldVad:
    """Says the given probabilities, one per frame, whatever it hears."""

    def __init__(self, probabilities):
        self._probabilities = np.asarray(probabilities, np.float32)

    def stream(self):
        return ToldStream(self._probabilities)


class ToldStream:
    def __init__(self, probabilities):
        self._probabilities = probabilities
        self._samples = 0

    def feed(self, audio):
        first = self._samples // FRAME
        self._samples += len(audio)
        return self._probabilities[first : self._samples // FRAME]

    def finish(self):
        return self._probabilities[self._samples // FRAME : -(-self._samples // FRAME)]


def frames(*parts):
    """Probabilities of (seconds, probability) parts."""
    return np.concatenate([np.full(round(s * SAMPLE_RATE / FRAME), p) for s, p in parts])
