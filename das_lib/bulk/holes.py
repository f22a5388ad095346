"""Speech that a transcript leaves out, found by the times of its words, so as to listen again.

Without timestamps, Whisper now and then skips a sentence of a long window, or ends before it does.
The alignment then stretches the words around the hole over it. Marks are a word over seconds of
speech, and speech between two pauses into which words only reach. What is heard in the hole alone
takes the place of the stretched words if it says more: see `fill`.

A window where nothing was heard at all has no hole: the VAD may be wrong, and Whisper has spoken.
"""

import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from das_lib.bulk.pack import Window
from das_lib.speech.audio import SAMPLE_RATE

LONGEST_EDGE_S = 1.5
"""Of a window before its first word and behind its last; speech is padded by a fraction of it."""
SHORTEST_S = 1.0
"""Of a hole, and of what a window holds besides; less holds hardly a word."""
UNHEARD_S, PAUSE_S, TOUCH_S = 0.6, 0.3, 0.2
"""The shortest speech without a word of its own, the shortest pause beside it, and how far a word
reaches into speech at least: speech is padded by that much."""
PER_LETTER_S, PER_WIDE_S, PER_DIGIT_S = 0.12, 0.3, 0.6
"""The slowest that people speak in a stream. A Chinese character, kana or Hangul is wide, a
syllable or more; a digit may be a word."""

Answer = Mapping[str, Any]
"""What a replica says of a window, see `das_lib.bulk.stitch.stitch`."""
Word = Mapping[str, Any]
"""One of its ``words``; times are in the window, s."""


@dataclass(frozen=True, slots=True)
class Hole:
    """Words [first, last) of a window, none at its edges, that stand for more than they say."""

    first: int
    last: int
    start_s: float
    """Of what is to be heard again, in the window."""
    end_s: float
    before_s: float = 0.0
    """How long the words last before it, for some of them were said there."""
    after_s: float = 0.0
    """And behind it."""

    @property
    def duration_s(self) -> float:
        """Of what is to be heard again."""
        return self.end_s - self.start_s


def find_holes(window: Window, answer: Answer) -> list[Hole]:
    """Holes in what was heard, in order, none overlapping the next.

    None where nothing was heard, or the words have no times; nor is the whole window a hole, for
    what is heard in it is known. Nobody speaks in a pause: it neither makes a hole nor is in one.
    """
    words = answer["words"]
    if not words or not timed(words):
        return []
    speech = window.speech_s()
    window_s = sum(piece.end - piece.start for piece in window.pieces) / SAMPLE_RATE
    stretched = {
        (i, i + 1)
        for i, word in enumerate(words)
        if _leaves_out(speech, word["start_s"], word["end_s"], word["text"])
    } | _reaching(words, speech)
    marks = [(i, j, words[i]["start_s"], words[j - 1]["end_s"]) for i, j in sorted(stretched)]
    if _leaves_out(speech, 0.0, words[0]["start_s"]):
        marks.insert(0, (0, 0, 0.0, words[0]["start_s"]))
    if _leaves_out(speech, words[-1]["end_s"], window_s):
        marks.append((len(words), len(words), words[-1]["end_s"], window_s))
    holes: list[Hole] = []
    for first, last, start, end in marks:
        start, end = max(0.0, start), min(end, window_s)
        # The word between two stretched ones is itself misplaced.
        if holes and first - holes[-1].last <= 1:
            holes[-1] = Hole(holes[-1].first, last, holes[-1].start_s, end)
        else:
            holes.append(Hole(first, last, start, end))
    return [
        hole
        for hole in (_between_pauses(hole, speech) for hole in holes)
        if SHORTEST_S <= hole.duration_s <= window_s - SHORTEST_S
    ]


def _leaves_out(
    speech: Sequence[tuple[float, float]], start_s: float, end_s: float, text: str = ""
) -> bool:
    """Whether the speech in a stretch is too much for the word, or to stand for nothing."""
    inside = _in(speech, start_s, end_s)
    spoken_s = sum(_overlap_s(region, start_s, end_s) for region in inside)
    whole = (end - start for start, end in inside if start_s <= start and end <= end_s)
    return spoken_s > LONGEST_EDGE_S + slowest_s(text) or (
        not text and max(whole, default=0.0) > SHORTEST_S
    )


def _reaching(words: Sequence[Word], speech: Sequence[tuple[float, float]]) -> set[tuple[int, int]]:
    """Words [first, last) that reach, over pauses, into speech that has no word of its own.

    They may have been said on the other side of the pause. If it takes less to say them than the
    speech lasts, something else was said in it.
    """
    regions: list[tuple[float, float]] = []
    for start, end in speech:
        if regions and start - regions[-1][1] < PAUSE_S:
            start, _ = regions.pop()
        regions.append((start, end))
    found = set()
    for region in regions:
        at = [
            i
            for i, word in enumerate(words)
            if _overlap_s(region, word["start_s"], word["end_s"])
            > min(TOUCH_S, (word["end_s"] - word["start_s"]) / 2)
        ]
        beside = [other for other in regions if other != region]
        said_s = slowest_s("".join(plain(words[i]["text"]) for i in at))
        if (
            at
            and region[1] - region[0] > max(UNHEARD_S, said_s)
            and all(_touches(beside, words[i]) for i in at)
        ):
            found.add((at[0], at[-1] + 1))
    return found


def _touches(speech: Sequence[tuple[float, float]], word: Word) -> bool:
    return any(_overlap_s(region, word["start_s"], word["end_s"]) > TOUCH_S for region in speech)


def _overlap_s(region: tuple[float, float], start_s: float, end_s: float) -> float:
    """How much of a region a stretch covers; negative where it is beside it."""
    return min(region[1], end_s) - max(region[0], start_s)


def _in(
    speech: Sequence[tuple[float, float]], start_s: float, end_s: float
) -> list[tuple[float, float]]:
    return [(start, end) for start, end in speech if start < end_s and end > start_s]


def _between_pauses(hole: Hole, speech: Sequence[tuple[float, float]]) -> Hole:
    """The hole without the end of what was said before it, and the beginning of what was after.

    A stretched word begins where it was said, and that is before the pause.
    """
    inside = _in(speech, hole.start_s, hole.end_s)
    start_s, end_s = hole.start_s, hole.end_s
    if len(inside) > 1 and inside[0][0] < start_s and inside[0][1] - start_s <= SHORTEST_S:
        start_s = (inside[0][1] + inside[1][0]) / 2
        del inside[0]
    if len(inside) > 1 and inside[-1][1] > end_s and end_s - inside[-1][0] <= SHORTEST_S:
        end_s = (inside[-2][1] + inside[-1][0]) / 2
    before_s, after_s = start_s - hole.start_s, hole.end_s - end_s
    return Hole(hole.first, hole.last, start_s, end_s, before_s, after_s)


def timed(words: Sequence[Word]) -> bool:
    """Whether each word has its times."""
    return all(None not in (word["start_s"], word["end_s"]) for word in words)


def plain(text: str) -> str:
    """What two spellings of a word share."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def slowest_s(text: str) -> float:
    """How long it takes to say, at the most."""
    digits = sum(c.isdigit() for c in text)
    wide = sum(not c.isdigit() and unicodedata.east_asian_width(c) in "WF" for c in text)
    letters = len(text) - digits - wide
    return PER_LETTER_S * letters + PER_WIDE_S * wide + PER_DIGIT_S * digits
