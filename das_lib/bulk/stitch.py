"""From the answers for windows to the segments of a recording.

A window holds pieces of speech with the silence between them left out. A word belongs to the
piece that holds the middle of its time; a piece with words becomes one segment, or several of
subtitle size. Words begin and end where speech does: attention says when a word begins, and so
gives a pause to the word before it, or to the one behind it (see `das_lib.bulk.pauses`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Protocol

from das_lib.bulk.pauses import behind_pauses, share
from das_lib.bulk.transcript import Segment, Word
from das_lib.bulk.written import BLANKLESS, cut, ends_clause, ends_sentence
from das_lib.doubt import compression_ratio
from das_lib.speech.audio import SAMPLE_RATE

MAX_SEGMENT_S = 10.0
MAX_SEGMENT_CHARACTERS = 84  # two lines of a subtitle
MIN_PAUSE_S = 0.5

_BETWEEN_SENTENCES = re.compile(r"(?<=[。？！｡?!])(?=[\w「『（《])")


class Piece(Protocol):
    """A stretch of speech of the recording."""

    @property
    def start(self) -> int:
        """Where it begins in the recording, in samples."""
        ...

    @property
    def end(self) -> int:
        """Behind its last sample."""
        ...


class Window(Protocol):
    """What was decoded at once, as far as its times matter."""

    @property
    def pieces(self) -> Sequence[Piece]:
        """In order of time, at least one."""
        ...

    def place(self, seconds: float, /) -> float:
        """Seconds in the window -> seconds in the recording."""
        ...

    def piece_of(self, seconds: float, /) -> int:
        """Seconds in the window -> number of the piece."""
        ...

    def speech_s(self) -> Sequence[tuple[float, float]]:
        """Where somebody speaks in the window, s, in order."""
        ...

    def spoken(self, start_s: float, end_s: float, /) -> tuple[float, float]:
        """What of a stretch of the recording is speech."""
        ...


@dataclass(frozen=True, slots=True)
class _Heard:
    """A word with its times in the recording and the blanks that stand in front of it."""

    word: Word
    written: str
    piece: int
    start_s: float
    end_s: float


def stitch(
    windows_and_answers: Sequence[tuple[Window, Mapping[str, Any]]],
    branches: Sequence[str],
    *,
    word_times: bool,
) -> tuple[Segment, ...]:
    """Segments of a recording, in order, none overlapping the next, each word inside its segment.

    Segments have at most `MAX_SEGMENT_S` and `MAX_SEGMENT_CHARACTERS` unless a single word has
    more, or the words have no times.

    Args:
        windows_and_answers: In order of time. An answer has ``text``, ``language``,
            ``avg_logprob``, ``temperature``, ``no_speech_prob`` and ``words``; a word has
            ``text``, ``branch``, ``confidence``, and ``start_s`` and ``end_s`` in the window. If a
            word has no times, the window becomes one segment.
        branches: Names by number; 0 is the base.
        word_times: Whether words keep their times.
    """
    segments: list[Segment] = []
    for window, answer in windows_and_answers:
        if not answer["text"].strip():
            continue
        earliest = segments[-1].end_s if segments else 0.0
        words, measures = list(answer["words"]), _measures(answer)
        if words and all(None not in (word["start_s"], word["end_s"]) for word in words):
            heard = _heard(window, answer, branches, word_times, earliest)
            for _, piece in groupby(heard, lambda word: word.piece):
                segments += [_segment(part, measures) for part in _split(list(piece))]
        else:
            text = answer["text"].strip()
            start = max(earliest, window.pieces[0].start / SAMPLE_RATE)
            end = max(start, window.pieces[-1].end / SAMPLE_RATE)
            untimed = tuple(_word(word, branches) for word in words)
            segments.append(Segment(start_s=start, end_s=end, text=text, words=untimed, **measures))
    return tuple(segments)


def _heard(
    window: Window,
    answer: Mapping[str, Any],
    branches: Sequence[str],
    word_times: bool,
    earliest: float,
) -> list[_Heard]:
    """The words of a window, placed in the recording; none begins before the last one ended."""
    words = answer["words"]
    if answer["language"] in BLANKLESS:
        words = [sentence for word in words for sentence in _sentences(word)]
    words = behind_pauses(words, window.speech_s())
    written = cut(answer["text"].strip(), [word["text"] for word in words], answer["language"])
    heard: list[_Heard] = []
    number = 0
    for word, text in zip(words, written, strict=True):
        number = max(number, window.piece_of((word["start_s"] + word["end_s"]) / 2))
        piece = window.pieces[number]
        low, high = piece.start / SAMPLE_RATE, piece.end / SAMPLE_RATE
        start = min(max(window.place(word["start_s"]), low), high)
        start, end = window.spoken(start, max(start, min(window.place(word["end_s"]), high)))
        start, end = max(earliest, start), max(earliest, start, end)
        times = {"start_s": start, "end_s": end} if word_times else {}
        heard.append(_Heard(_word(word, branches, **times), text, number, start, end))
        earliest = end
    return heard


def _sentences(word: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """A "word" of a script without blanks as its sentences, with time shared by characters.

    Without this all that is said between two blanks, often the whole window, would be one word in
    one piece.
    """
    texts = _BETWEEN_SENTENCES.split(word["text"])
    return share([{**word, "text": text} for text in texts], word["start_s"], word["end_s"])


def _split(words: list[_Heard]) -> list[list[_Heard]]:
    """Halve what is too long for a subtitle, until nothing is or only single words are."""
    short = words[-1].end_s - words[0].start_s <= MAX_SEGMENT_S
    if len(words) == 1 or (short and len(_text(words)) <= MAX_SEGMENT_CHARACTERS):
        return [words]
    at = _best_cut(words)
    return _split(words[:at]) + _split(words[at:])


def _best_cut(words: list[_Heard]) -> int:
    """The word to begin the second half with: after a sentence, else a pause, else a clause."""
    texts = [word.word.text for word in words]
    places = range(1, len(words))
    pauses = [after.start_s - before.end_s for before, after in pairwise(words)]
    candidates = (
        [at for at in places if ends_sentence(texts[at - 1])]
        or [at for at in places if pauses[at - 1] >= MIN_PAUSE_S]
        or [at for at in places if ends_clause(texts[at - 1])]
        or places
    )
    return min(candidates, key=lambda at: abs(len(_text(words[:at])) - len(_text(words[at:]))))


def _segment(words: list[_Heard], measures: Mapping[str, Any]) -> Segment:
    return Segment(
        start_s=words[0].start_s,
        end_s=words[-1].end_s,
        text=_text(words),
        words=tuple(word.word for word in words),
        **measures,
    )


def _measures(answer: Mapping[str, Any]) -> dict[str, Any]:
    """What holds for the whole window and stands in each of its segments."""
    return {
        "avg_logprob": answer["avg_logprob"],
        "compression_ratio": compression_ratio(answer["text"]),
        "no_speech_prob": answer["no_speech_prob"],
        "temperature": answer["temperature"],
    }


def _word(word: Mapping[str, Any], branches: Sequence[str], **times: float) -> Word:
    adapter = branches[int(word["branch"])]
    return Word(text=word["text"], adapter=adapter, confidence=word["confidence"], **times)


def _text(words: Sequence[_Heard]) -> str:
    return "".join(word.written for word in words).strip()
