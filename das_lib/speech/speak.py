"""The process that speaks a block of texts, and checks every recording."""

import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from das_lib.config.tree import Tts
from das_lib.errors import Reject
from das_lib.ids import row_id
from das_lib.rows import Outcome
from das_lib.speech.audio import SAMPLE_RATE, Audio, loudness, to_flac
from das_lib.speech.checks import check_speech
from das_lib.speech.spoken import SpokenForm
from das_lib.speech.tts import ENGINES
from schemas.speech import SPEECH

if TYPE_CHECKING:
    from das_lib.speech.round_trip import RoundTrip

SPEAKABLE = re.compile(r"[^\W_]")


class SpeakTexts:
    """Process: rows of TEXTS to rows of SPEECH; ``amount`` is seconds of audio.

    A text without a letter or digit is rejected as ``nothing-to-speak``, an engine's failure as
    ``tts-failed``, a doubtful recording with the reason of `check_speech`, one that the base hears
    otherwise as ``misheard``.
    """

    def __init__(
        self, tts: Tts, language: str | None = None, round_trip: "RoundTrip | None" = None
    ) -> None:
        """Load the voices.

        Args:
            tts: Engine, voices, bounds.
            language: Of the texts, a code such as ``en``; None leaves numbers to the voice.
            round_trip: The base, where it is asked.
        """
        self.tts, self._round_trip = tts, round_trip
        self._cast = [(voice, ENGINES[tts.engine](voice, tts.pool.threads)) for voice in tts.cast]
        self._spoken = SpokenForm(language if tts.normalise else None)

    def __call__(self, texts: pa.Table) -> Outcome:
        """Speak a block."""
        rows: list[dict[str, Any]] = []
        clips: list[Audio] = []
        rejects: list[Reject] = []
        for row in texts.to_pylist():
            spoken = self._speak(row)
            if isinstance(spoken, Reject):
                rejects.append(spoken)
            else:
                rows.append(spoken[0])
                clips.append(spoken[1])
        if self._round_trip is not None and rows:
            rows, misheard = self._round_trip(rows, clips)
            rejects += misheard
        samples = sum(row["num_samples"] for row in rows)
        return Outcome(pa.Table.from_pylist(rows, schema=SPEECH), rejects, samples / SAMPLE_RATE)

    def _speak(self, row: dict[str, Any]) -> tuple[dict[str, Any], Audio] | Reject:
        text = row["text"]
        if not SPEAKABLE.search(text):
            return Reject(row["id"], "nothing-to-speak", repr(text))
        voice, synthesizer = self._cast[int(row_id("voice", row["id"]), 16) % len(self._cast)]
        spoken = self._spoken(text)
        try:
            audio = synthesizer.speak(spoken)
        except Exception as error:  # an engine may fail in any way on one text
            return Reject(row["id"], "tts-failed", f"{type(error).__name__}: {error} on {spoken!r}")
        fault = check_speech(audio, spoken)
        if fault:
            return Reject(row["id"], *fault)
        audio = np.ascontiguousarray(audio, np.float32)
        return {
            **{key: row[key] for key in ("id", "domain", "text", "split")},
            "spoken": spoken,
            "audio": to_flac(audio),
            "sample_rate_hz": SAMPLE_RATE,
            "num_samples": len(audio),
            "loudness": loudness(audio),
            "cer": None,
            "engine": synthesizer.engine,
            "voice": voice.label,
        }, audio
