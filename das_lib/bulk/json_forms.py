"""JSON: our own lines, openai/whisper's result, and what OpenAI's API calls verbose_json."""

import json
import math
from typing import Any

from das_lib.bulk.languages import language_name
from das_lib.bulk.transcript import Segment, Transcript
from das_lib.bulk.written import BLANKLESS, cut


def jsonl(transcript: Transcript, **more: Any) -> str:
    """One line with all that is known, under the names of `Transcript`; times in s."""
    return _line(
        {
            "id": transcript.id,
            "text": transcript.text,
            "language": transcript.language,
            "duration_s": _number(transcript.duration_s, 3),
            "speech_s": _number(transcript.speech_s, 3),
            "segments": [
                {
                    "start_s": _number(segment.start_s, 3),
                    "end_s": _number(segment.end_s, 3),
                    "text": segment.text,
                    "avg_logprob": _number(segment.avg_logprob, 4),
                    "compression_ratio": _number(segment.compression_ratio, 4),
                    "no_speech_prob": _number(segment.no_speech_prob, 4),
                    "temperature": _number(segment.temperature, 2),
                    "words": [
                        {
                            "text": word.text,
                            "adapter": word.adapter,
                            "confidence": _number(word.confidence, 4),
                            "start_s": _number(word.start_s, 3),
                            "end_s": _number(word.end_s, 3),
                        }
                        for word in segment.words
                    ],
                }
                for segment in transcript.segments
            ],
            **more,
        }
    )


def openai_json(transcript: Transcript) -> str:
    """The result of openai/whisper's ``transcribe``, on one line.

    As there, blanks stand in front of segments and words, so that readers can join them, and words
    are there only if they have times. ``seek`` is 0 and ``tokens`` empty: they belong to
    openai/whisper's way of cutting recordings.
    """
    segments = []
    for number, segment in enumerate(transcript.segments):
        entry = _segment(number, segment, transcript.language)
        if _has_times(segment):
            written = cut(segment.text, [w.text for w in segment.words], transcript.language)
            entry["words"] = [
                {
                    "word": text if place else _blank(transcript.language) + text,
                    "start": _number(word.start_s, 3),
                    "end": _number(word.end_s, 3),
                    "probability": _number(word.confidence, 4),
                }
                for place, (word, text) in enumerate(zip(segment.words, written, strict=True))
            ]
        segments.append(entry)
    return _line({"text": transcript.text, "segments": segments, "language": transcript.language})


def verbose_json(transcript: Transcript) -> dict[str, Any]:
    """The object that OpenAI's API answers to ``response_format=verbose_json``.

    ``words`` is there only if all words have times; blanks, ``seek`` and ``tokens`` are as in
    `openai_json`, but for the words, which have no blanks.
    """
    words = {}
    if all(_has_times(segment) for segment in transcript.segments):
        words["words"] = [
            {"word": w.text, "start": _number(w.start_s, 3), "end": _number(w.end_s, 3)}
            for w in transcript.words
        ]
    return {
        "task": "transcribe",
        "language": language_name(transcript.language),
        "duration": _number(transcript.duration_s, 3),
        "text": transcript.text,
        "segments": [
            _segment(number, segment, transcript.language)
            for number, segment in enumerate(transcript.segments)
        ],
        **words,
    }


def _segment(number: int, segment: Segment, language: str) -> dict[str, Any]:
    return {
        "id": number,
        "seek": 0,
        "start": _number(segment.start_s, 3),
        "end": _number(segment.end_s, 3),
        "text": _blank(language) + segment.text,
        "tokens": [],
        "temperature": _number(segment.temperature, 2),
        "avg_logprob": _number(segment.avg_logprob, 4),
        "compression_ratio": _number(segment.compression_ratio, 4),
        "no_speech_prob": _number(segment.no_speech_prob, 4),
    }


def _blank(language: str) -> str:
    return "" if language in BLANKLESS else " "


def _has_times(segment: Segment) -> bool:
    return bool(segment.words) and all(
        word.start_s is not None and word.end_s is not None for word in segment.words
    )


def _number(value: float | None, digits: int) -> float | None:
    """Rounded; None for what JSON cannot say."""
    return None if value is None or not math.isfinite(value) else round(float(value), digits)


def _line(value: dict[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False) + "\n"
