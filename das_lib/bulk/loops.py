"""Windows that Whisper repeats itself in, heard again as two.

A loop begins where speech is hard to make out and goes on to the end of the window, over all that
is said there. Begun elsewhere, with other speech around it, it seldom comes again.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from das_lib.bulk.guards import DROPPED, GuardSettings, judge
from das_lib.bulk.holes import timed
from das_lib.bulk.pack import Window
from das_lib.bulk.written import cut
from das_lib.doubt import compression_ratio

Answer = Mapping[str, Any]


def halves(window: Window) -> list[float]:
    """Where its two parts begin, s, the second in the longest pause of the middle half.

    Where there is none, in the one nearest to the middle; empty if nobody pauses in the window.
    """
    speech, middle = window.speech_s(), window.duration_s / 2
    pauses = [(end, start) for (_, end), (start, _) in pairwise(speech)]
    if not pauses:
        return []

    def fit(pause: tuple[float, float]) -> tuple[float, float]:
        off = abs(sum(pause) / 2 - middle)
        return (pause[1] - pause[0], -off) if off <= middle / 2 else (0.0, -off)

    return [0.0, sum(max(pauses, key=fit)) / 2]


def unloop(
    answer: Answer, starts_s: Sequence[float], heard: Sequence[Answer], guards: GuardSettings
) -> Answer:
    """The parts' answers as one, if it repeats itself no more than the window's does; else that.

    A part that the guards drop says nothing. The log-probability is the parts' mean by words. Where
    words have no times, nothing is changed.

    Args:
        answer: For the window.
        starts_s: Where its parts begin.
        heard: The answer for each, with word times.
        guards: Bounds of what is believed.
    """
    parts = [
        (start, part)
        for start, part in zip(starts_s, heard, strict=True)
        if part["words"] and judge(part, guards) not in DROPPED
    ]
    if not parts:
        return {**answer, "text": "", "words": []}
    if not all(timed(part["words"]) for _, part in parts):
        return answer
    words = [
        {**word, **{key: start + word[key] for key in ("start_s", "end_s")}}
        for start, part in parts
        for word in part["words"]
    ]
    texts = [part["text"].strip() for _, part in parts]
    text = "".join(cut("", texts, answer["language"]))
    if compression_ratio(text) > compression_ratio(answer["text"]):
        return answer
    weighed = sum(part["avg_logprob"] * len(part["words"]) for _, part in parts)
    silences = [part["no_speech_prob"] for _, part in parts]
    return {
        **answer,
        "text": text,
        "words": words,
        "avg_logprob": weighed / len(words),
        "no_speech_prob": None if None in silences else min(silences),
        "temperature": max(part["temperature"] for _, part in parts),
    }
