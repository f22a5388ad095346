"""Where somebody speaks in a recording: Silero's voice activity detection, as a stream.

`VadStream` turns audio into a probability of speech per frame, `Regions` turns probabilities into
regions of speech. Both hear a recording block by block, and any blocks give the same regions.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import onnxruntime

from das_lib.errors import ModelError
from das_lib.models.onnx import thread_options
from das_lib.speech.audio import SAMPLE_RATE, Audio

FRAME = 512  # samples per probability, 32 ms
CONTEXT = 64  # samples before a frame that the model hears with it
STATE = (1, 1, 128)
SECOND = 32  # frames in one call, 1.02 s; more gain no speed
SPOKEN, QUIET = 0.5, 0.1  # probabilities at which it is sure
LOUD, LIFT = 0.1, 10.0  # root mean square to which quieter sound is lifted, and by how much at most
RELEASE = 10.0 ** (-10 / 20 * FRAME / SAMPLE_RATE)  # a loud sound is forgotten by 10 dB a second
HYSTERESIS = 0.15  # speech goes on down to this much below the threshold
LOWEST_THRESHOLD = 0.01

Probabilities = npt.NDArray[np.float32]


class Vad:
    """Silero's network for 16 kHz, on one CPU thread."""

    def __init__(self, path: str | Path) -> None:
        """Load the network that takes many frames at once, ``silero_vad_16k_sequence.onnx``."""
        self._session = onnxruntime.InferenceSession(
            str(path), thread_options(1), providers=["CPUExecutionProvider"]
        )

    @classmethod
    def from_package(cls) -> Self:
        """The network that the installed package silero-vad holds.

        Raises:
            ModelError: the package, or the file in it, is missing.
        """
        # Importing the package would import torch; finding it does not.
        spec = find_spec("silero_vad")
        for folder in (spec and spec.submodule_search_locations) or ():
            path = Path(folder) / "data" / "silero_vad_16k_sequence.onnx"
            if path.is_file():
                return cls(path)
        raise ModelError(
            "silero_vad_16k_sequence.onnx is missing; install the package silero-vad>=6.2.3"
        )

    def stream(self) -> "VadStream":
        """The stream of one recording; streams of several threads may share the network."""
        return VadStream(self._session)


class Gain:
    """By how much quiet sound is lifted to the loudness of speech, `LIFT` at most.

    Sound gets louder at once and quieter by and by, so that within a word and in short pauses the
    gain hardly changes.
    """

    def __init__(self) -> None:
        self._loudness = 0.0  # root mean square of the last frame, or what is left of louder ones

    def of(self, frames: Audio) -> Audio:
        """For the next frames, shape [frames, samples]: a factor each, at least 1, [frames]."""
        loudness = np.sqrt(np.square(frames).mean(1)).tolist()
        for i, own in enumerate(loudness):
            self._loudness = loudness[i] = max(own, self._loudness * RELEASE)
        return np.maximum(LOUD / np.maximum(loudness, LOUD / LIFT), 1.0).astype(np.float32)


class VadStream:
    """What the network remembers of one recording.

    Behind loud or noisy speech the network is deaf to quiet speech, for minutes. So it hears all
    at a like loudness: what is quieter than usual speech is lifted, as a recorder with automatic
    gain does. And where somebody has spoken and then a second passes without a trace of speech, it
    begins anew, as with another recording. Not again before it has heard speech: a fresh network
    takes a note for a voice.
    """

    def __init__(self, session: onnxruntime.InferenceSession) -> None:
        self._session = session
        self._kept = np.zeros(CONTEXT, np.float32)  # context, then samples short of a frame
        self._gain = Gain()
        self._forget()
        self._left, self._highest = SECOND, 0.0  # frames to come of this second, and its maximum

    def feed(self, audio: Audio) -> Probabilities:
        """Probability of speech in each whole frame, shape [frames]; the rest waits.

        ``audio`` has shape [samples] and finite samples.
        """
        audio = np.concatenate([self._kept, audio])
        count = (len(audio) - CONTEXT) // FRAME
        self._kept = audio[count * FRAME :].copy()
        if not count:
            return np.zeros(0, np.float32)
        frames = np.lib.stride_tricks.sliding_window_view(audio, CONTEXT + FRAME)[::FRAME]
        frames = frames * self._gain.of(frames[:, CONTEXT:])[:, None]
        heard, at = [], 0
        while at < count:
            heard.append(self._run(frames[at : min(count, at + self._left)]))
            at += len(heard[-1])
        return np.concatenate(heard)

    def finish(self) -> Probabilities:
        """Probability of the last frame, padded with zeros; shape [0] or [1]."""
        missing = -(len(self._kept) - CONTEXT) % FRAME
        return self.feed(np.zeros(missing, np.float32))

    def _run(self, frames: Audio) -> Probabilities:
        inputs = {"input": frames, "h": self._hidden, "c": self._cell}
        outputs: Any = self._session.run(["speech_probs", "hn", "cn"], inputs)
        probabilities, self._hidden, self._cell = outputs
        self._left -= len(probabilities)
        self._highest = max(self._highest, float(probabilities.max()))
        if not self._left:
            self._spoken |= self._highest >= SPOKEN
            if self._spoken and self._highest < QUIET:
                self._forget()
            self._left, self._highest = SECOND, 0.0
        return probabilities

    def _forget(self) -> None:
        self._hidden = self._cell = np.zeros(STATE, np.float32)
        self._spoken = False


@dataclass(frozen=True, slots=True)
class Region:
    """Speech: samples [start, end) of the recording."""

    start: int
    end: int


class Regions:
    """Regions of one recording, from the probabilities of its frames.

    As Silero's: speech begins where a probability reaches ``threshold``, and ends where it falls
    below ``threshold - 0.15`` and does not reach ``threshold`` again for ``min_silence_s``.
    Regions up to ``min_speech_s`` are dropped. The others are padded by ``pad_s`` on each side,
    or by half of the pause to the next where that is less.

    With ``max_s`` no region is longer: one whose speech is longer is split, and padding gives way.
    The split is in the frame of the lowest probability between ``max_s / 2`` and ``max_s``, so
    that no word is cut if there is any dip.
    """

    def __init__(
        self,
        *,
        threshold: float,
        min_speech_s: float,
        min_silence_s: float,
        pad_s: float,
        max_s: float | None = None,
    ) -> None:
        self._threshold = threshold
        self._low = max(threshold - HYSTERESIS, LOWEST_THRESHOLD)
        self._min_speech = round(min_speech_s * SAMPLE_RATE)
        self._min_silence = round(min_silence_s * SAMPLE_RATE)
        self._pad = round(pad_s * SAMPLE_RATE)
        self._max = None if max_s is None else round(max_s * SAMPLE_RATE)
        self._at = 0  # first sample of the next frame
        self._waiting: Region | None = None  # over, but its end is not padded yet
        self._start: int | None = None  # of the speech that goes on
        self._quiet: int | None = None  # where that speech may have ended
        self._left: int | None = None  # where its region begins, once it is long enough to count
        self._history: list[float] = []  # probabilities from frame `_first` on
        self._first = 0

    @property
    def settled(self) -> int:
        """Samples before this one are in no region that is still to come."""
        if self._waiting:
            return self._waiting.start
        if self._left is not None:
            return self._left
        return max(0, (self._at if self._start is None else self._start) - self._pad)

    def feed(self, probabilities: Probabilities) -> Iterator[Region]:
        """Regions that are certain after these frames, in order; iterate to the end.

        ``probabilities`` has shape [frames].
        """
        for probability in probabilities.tolist():
            at, self._at = self._at, self._at + FRAME
            if self._max is not None:
                self._history.append(probability)
            if probability >= self._threshold:
                self._quiet = None
                if self._start is None:
                    self._start = at
            elif probability < self._low and self._start is not None and self._quiet is None:
                self._quiet = at
            if self._start is not None:
                # The recording may end within this frame: only its first sample is certain.
                yield from self._reach(at + 1 if self._quiet is None else self._quiet)
            if (
                self._quiet is not None
                and probability < self._low
                and at - self._quiet >= self._min_silence
            ):
                self._close(self._quiet)
            if self._waiting and self._start is None and at - self._waiting.end >= 2 * self._pad:
                yield self._padded(self._waiting, self._waiting.end + self._pad)
                self._waiting = None
        self._forget()

    def finish(self, num_samples: int) -> Iterator[Region]:
        """The regions that are left, in a recording of ``num_samples`` samples."""
        if self._start is not None:
            yield from self._reach(num_samples)
            self._close(num_samples)
        if self._waiting:
            yield self._padded(self._waiting, min(num_samples, self._waiting.end + self._pad))
            self._waiting = None

    def _reach(self, end: int) -> Iterator[Region]:
        """The speech that goes on lasts until ``end`` at least."""
        assert self._start is not None
        if self._left is None:
            if end - self._start <= self._min_speech:
                return
            pad = self._pad
            if self._waiting:
                pad = min(pad, (self._start - self._waiting.end) // 2)
                yield self._padded(self._waiting, self._waiting.end + pad)
                self._waiting = None
            self._left = max(0, self._start - pad)
        while self._max is not None and end - self._left > self._max:
            cut = self._cut(self._left, self._max)
            yield Region(self._left, cut)
            self._left = cut

    def _close(self, end: int) -> None:
        if self._left is not None:
            self._waiting = Region(self._left, end)
        self._start = self._quiet = self._left = None

    def _padded(self, region: Region, end: int) -> Region:
        return Region(
            region.start, end if self._max is None else min(end, region.start + self._max)
        )

    def _cut(self, start: int, longest: int) -> int:
        """Where to split; of frames with the same probability, the last."""
        half = FRAME // 2  # a split is in the middle of a frame
        low = -(-(start + longest // 2 - half) // FRAME)
        high = (start + longest - half) // FRAME
        frame = min(range(low, high + 1), key=lambda i: (self._history[i - self._first], -i))
        return frame * FRAME + half

    def _forget(self) -> None:
        first = self.settled // FRAME
        del self._history[: first - self._first]
        self._first = first
