"""What was spoken, heard by the base: a voice that stumbles is found by the transcript."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jiwer

from das_lib.adml import Fixed, Transcriber
from das_lib.errors import Reject
from das_lib.evaluation.wer import normalise
from das_lib.speech.audio import Audio
from das_lib.text.filters import normal_form

BASE = "base"


class RoundTrip:
    """Bounds the character error rate between a text and the base's transcript of its recording.

    Both are normalised first, so that "10" for "ten" is no error. The bound has to leave room for
    the errors that the adapters are to mend: names cost a few characters, a stumble costs half.
    """

    def __init__(self, model_folder: Path, language: str | None, max_cer: float) -> None:
        """Load the base."""
        self._transcriber = Transcriber.from_pretrained(model_folder, language=language)
        self._plain = normalise if language == "en" else normal_form
        self._max_cer = max_cer

    def __call__(
        self, rows: Sequence[dict[str, Any]], clips: Sequence[Audio]
    ) -> tuple[list[dict[str, Any]], list[Reject]]:
        """Rows of SPEECH with their ``cer``, and those that are ``misheard``."""
        kept: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        heard = self._transcriber.transcribe(clips, {BASE: Fixed(0)})
        for row, found in zip(rows, heard, strict=True):
            if isinstance(found, Reject):
                rejects.append(Reject(row["id"], found.reason, found.detail))
                continue
            transcript = found[BASE].text
            rate = character_error_rate(self._plain(row["text"]), self._plain(transcript))
            if rate > self._max_cer:
                detail = f"CER {rate:.2f} > tts.max_cer={self._max_cer:g}: {transcript[:200]!r}"
                rejects.append(Reject(row["id"], "misheard", detail))
            else:
                kept.append(row | {"cer": rate})
        return kept, rejects


def character_error_rate(text: str, transcript: str) -> float:
    """Character errors over the text's characters; of an empty text, 1 where anything was heard."""
    return float(jiwer.cer(text, transcript)) if text else float(bool(transcript))
