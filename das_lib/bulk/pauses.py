"""Words that alignment begins before a pause, and that are said behind it.

Attention turns to the first word of a sentence as soon as the last one is over, however long the
pause between them is; now and then it turns to the second as well.
"""

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from das_lib.bulk.written import ends_clause, ends_sentence

PADDED_S = 0.2
"""At the end of a region, where nobody speaks any more."""
LATEST_S = 0.6
"""Before the end of a region, that included, its last word has begun: people draw it out."""
MOST = 3
"""Words that attention turns to too early; of more the VAD may have missed that they are said."""


def behind_pauses(
    words: Sequence[Mapping[str, Any]], speech: Sequence[tuple[float, float]]
) -> list[Mapping[str, Any]]:
    """The words, of which some begin with the speech behind a pause.

    Args:
        words: With ``text``, ``start_s`` and ``end_s``, in order.
        speech: Regions where somebody speaks, padded, in order; s, as the words' times.
    """
    placed = list(words)
    for region, (start, _) in pairwise(speech):
        if start <= region[1]:  # no pause: long speech is split
            continue
        first = stop = bisect_left(placed, start, key=lambda word: word["start_s"])
        while first and _is_behind(placed, first - 1, region):
            first -= 1
        moved = placed[first:stop]
        if 0 < len(moved) <= MOST and moved[-1]["end_s"] > start:
            placed[first:stop] = share(moved, start, moved[-1]["end_s"])
    return placed


def share(
    words: Sequence[Mapping[str, Any]], start_s: float, end_s: float
) -> list[Mapping[str, Any]]:
    """The words one after the other between two times, by their characters."""
    rate = (end_s - start_s) / max(1, sum(len(word["text"]) for word in words))
    shared: list[Mapping[str, Any]] = []
    for word in words:
        end = start_s + rate * len(word["text"])
        shared.append({**word, "start_s": start_s, "end_s": end})
        start_s = end
    return shared


def _is_behind(words: Sequence[Mapping[str, Any]], i: int, region: tuple[float, float]) -> bool:
    """Whether a word is said behind the pause that follows the region.

    It is, if it begins too late to be said before; or if it ends near the pause and begins a
    sentence that goes on. What a mark follows, and the only word of a region, may be as short as
    it likes.
    """
    word, (start, end) = words[i], region
    only = i == 0 or words[i - 1]["start_s"] < start
    if only or ends_sentence(word["text"]) or ends_clause(word["text"]):
        return word["start_s"] > end - PADDED_S
    if ends_sentence(words[i - 1]["text"]):
        return word["end_s"] > end - LATEST_S
    return word["start_s"] > end - LATEST_S
