"""Speech that a transcript leaves out, found by the times of its words, so as to listen again.

Without timestamps, Whisper now and then skips a sentence of a long window, or ends before it does.
The alignment then stretches the words around the hole over it: a word over seconds of speech is the
mark. What is heard in the hole alone takes the place of the stretched words if it says more.

A window where nothing was heard at all has no hole: the VAD may be wrong, and Whisper has spoken.
"""

import re
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from das_lib.bulk.guards import GuardSettings, judge
from das_lib.bulk.pack import Window
from das_lib.bulk.written import BLANKLESS, cut
from das_lib.speech.audio import SAMPLE_RATE

LONGEST_EDGE_S = 1.5
"""Of a window before its first word and behind its last; speech is padded by a fraction of it."""
SHORTEST_S = 1.0
"""Of a hole, and of what a window holds besides; less holds hardly a word."""
PER_LETTER_S, PER_WIDE_S, PER_DIGIT_S = 0.12, 0.3, 0.6
"""The slowest that people speak in a stream. A Chinese character, kana or Hangul is wide, a
syllable or more; a digit may be a word."""
LEAST_FILLED = 1 / 3
"""Of a hole, by what was heard in it at that pace; in silence Whisper makes up a few words."""

_SENTENCE_END = re.compile(r"[.?!…。？！｡।۔։؟၊။]\W*$")
_GUARDS = GuardSettings()

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
    marks = [
        (i, i + 1, word["start_s"], word["end_s"])
        for i, word in enumerate(words)
        if _leaves_out(speech, word["start_s"], word["end_s"], word["text"])
    ]
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
    """Whether the speech in a stretch stands for more than the word, or than nothing.

    It does if it is too much for a word, or if there is a pause in it and a sentence on one side:
    the word is on the other.
    """
    inside = _in(speech, start_s, end_s)
    spoken_s = sum(min(end, end_s) - max(start, start_s) for start, end in inside)
    slowest_s = _slowest_s(text)
    longest_s = max(
        (end - start for start, end in inside if start_s <= start and end <= end_s), default=0.0
    )
    return spoken_s > LONGEST_EDGE_S + slowest_s or (
        longest_s > max(SHORTEST_S, slowest_s) and not (text and len(inside) == 1)
    )


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


def fill(
    answer: Answer,
    holes: Sequence[Hole],
    heard: Sequence[Answer],
    guards: GuardSettings = _GUARDS,
) -> dict[str, Any]:
    """The answer with each hole's words replaced by what was heard there, where that says more.

    It says more if it has more letters than the words that were said in the hole, enough to fill
    `LEAST_FILLED` of it, and the guards find it neither repetitive nor without speech. A stretched
    word that was said at an end of the hole may be missing in it: that stays, see `_kept`.

    Args:
        answer: For the window. The rest of it stays: log-probabilities and the like are the
            first answer's.
        holes: What `find_holes` found in it.
        heard: The answer for each hole's window, with word times.
        guards: Bounds of what is believed.
    """
    language, words = answer["language"], list(answer["words"])
    believed = []
    for hole, found in zip(holes, heard, strict=True):
        stretched = words[hole.first : hole.last]
        before, after = _kept(stretched, found["words"], language)
        in_it = stretched[before if hole.before_s else 0 : after if hole.after_s else None]
        if _says_more(found, in_it, hole, guards):
            believed.append((hole, found, stretched[:before], stretched[after:]))
    if not believed:
        return {**answer}
    written = cut(answer["text"].strip(), [word["text"] for word in words], language)
    for hole, found, before, after in reversed(believed):
        texts = cut(found["text"].strip(), [w["text"] for w in found["words"]], found["language"])
        begin, end = hole.first + len(before), hole.last - len(after)
        written[begin:end] = texts
        words[hole.first : hole.last] = _placed(before, found["words"], after, hole)
        # Parts begin with their blank, but for these, which had nothing in front of them.
        for at in {begin, begin + len(texts)} - {0, len(written)}:
            if not written[at][:1].isspace():
                written[at] = cut("", [written[at - 1].strip(), written[at]], language)[1]
    return {**answer, "text": "".join(written).strip(), "words": words}


def _says_more(found: Answer, in_it: Sequence[Word], hole: Hole, guards: GuardSettings) -> bool:
    before, now = ("".join(w["text"] for w in words) for words in (in_it, found["words"]))
    return (
        len(_plain(now)) > len(_plain(before))
        and timed(found["words"])
        and _slowest_s(now) >= LEAST_FILLED * hole.duration_s
        and judge(found, guards) not in ("no-speech", "repetitive")
    )


def _kept(stretched: Sequence[Word], found: Sequence[Word], language: str) -> tuple[int, int]:
    """How many of the first stretched words stay before the found ones, and from where on after.

    The outermost found words tell where among the stretched ones they begin and end; the
    stretched words outside stay. Without that sign those up to the end of a sentence were said
    before the hole, the others behind it: a skipped sentence ends where one begins.
    """
    said = [_plain(word["text"]) for word in stretched]
    texts = [text for word in found if (text := _plain(word["text"]))]
    if not texts:
        return 0, len(stretched)
    if language in BLANKLESS:
        # There a word is a sentence, which is seldom heard twice the same to its last character.
        ends = texts[0][:2], texts[-1][-2:]
        begins, stops = ([i for i, text in enumerate(said) if text and end in text] for end in ends)
    else:
        begins = [i for i, text in enumerate(said) if text == texts[0]]
        stops = [i for i, text in enumerate(said) if text == texts[-1]]
    sentence = max(
        (i + 1 for i, word in enumerate(stretched) if _SENTENCE_END.search(word["text"])), default=0
    )
    before = begins[0] if begins else min([sentence, *stops[-1:]])
    after = stops[-1] + 1 if stops else max([sentence, *(i + 1 for i in begins[:1])])
    return before, max(before, after)


def _placed(
    before: Sequence[Word], found: Sequence[Word], after: Sequence[Word], hole: Hole
) -> list[Word]:
    """All stretched and found words; kept ones stand beside the hole.

    Where there is no place beside it, they share the time of the found word next to them.
    """
    start, end = hole.start_s, hole.end_s
    words: list[Word] = [
        {**word, **{key: min(start + word[key], end) for key in ("start_s", "end_s")}}
        for word in found
    ]
    if before and hole.before_s:
        words[:0] = _spread(before, start - hole.before_s, start)
    elif before:
        words[:1] = _spread([*before, words[0]], start, words[0]["end_s"])
    if after and hole.after_s:
        words += _spread(after, end, end + hole.after_s)
    elif after:
        words[-1:] = _spread([words[-1], *after], words[-1]["start_s"], end)
    return words


def _spread(words: Sequence[Word], start_s: float, end_s: float) -> list[Word]:
    """The words one right after the other, each as long as its letters."""
    letters = list(accumulate((max(1, len(word["text"])) for word in words), initial=0))
    times = pairwise(np.interp(letters, (0, letters[-1]), (start_s, end_s)).tolist())
    return [
        {**word, "start_s": start, "end_s": end}
        for word, (start, end) in zip(words, times, strict=True)
    ]


def timed(words: Sequence[Word]) -> bool:
    """Whether each word has its times."""
    return all(None not in (word["start_s"], word["end_s"]) for word in words)


def _plain(text: str) -> str:
    """What two spellings of a word share."""
    return "".join(filter(str.isalnum, unicodedata.normalize("NFKC", text).casefold()))


def _slowest_s(text: str) -> float:
    """How long it takes to say, at the most."""
    digits = sum(c.isdigit() for c in text)
    wide = sum(not c.isdigit() and unicodedata.east_asian_width(c) in "WF" for c in text)
    letters = len(text) - digits - wide
    return PER_LETTER_S * letters + PER_WIDE_S * wide + PER_DIGIT_S * digits
