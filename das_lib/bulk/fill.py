"""What was heard in the holes of a window, put into its transcript."""

import re
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Any

import numpy as np

from das_lib.bulk.guards import GuardSettings, judge
from das_lib.bulk.holes import Answer, Hole, Word, plain, slowest_s, timed
from das_lib.bulk.written import BLANKLESS, cut

LEAST_FILLED = 1 / 3
"""Of a hole, by what was heard in it at that pace; in silence Whisper makes up a few words."""

_SENTENCE_END = re.compile(r"[.?!…。？！｡।۔։؟၊။]\W*$")
_GUARDS = GuardSettings()


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
        len(plain(now)) > len(plain(before))
        and timed(found["words"])
        and slowest_s(now) >= LEAST_FILLED * hole.duration_s
        and judge(found, guards) not in ("no-speech", "repetitive")
    )


def _kept(stretched: Sequence[Word], found: Sequence[Word], language: str) -> tuple[int, int]:
    """How many of the first stretched words stay before the found ones, and from where on after.

    The outermost found words tell where among the stretched ones they begin and end; the
    stretched words outside stay. Without that sign those up to the end of a sentence were said
    before the hole, the others behind it: a skipped sentence ends where one begins.
    """
    said = [plain(word["text"]) for word in stretched]
    texts = [text for word in found if (text := plain(word["text"]))]
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
