"""The text as the base would have written it: its punctuation and spelling, the text's words.

A text says *what* is to be learnt. Where it also writes differently from the base (no final stop,
"ten" for "10"), the adapter spends itself on the style, and forgets how the base ends a sentence
wherever else it decodes. So the base transcribes the training speech, and of its transcript all is
kept that says the same.
"""

import difflib
import re

from das_lib.evaluation.wer import normalise

_EDGES = re.compile(r"^[^\w]+|[^\w]+$")
_MARKS = r"[^\w%'\"”’)]"
_STOP, _STOPS = re.compile(_MARKS + "{0,3}$"), re.compile(_MARKS + "*$")


def in_base_style(text: str, transcript: str, *, english: bool = True) -> str:
    """The words of ``text``, written as in ``transcript`` where both say the same.

    Args:
        text: What was spoken.
        transcript: What the base makes of it; where it errs, the text's own words stay.
        english: Words that Whisper's English normaliser takes for the same ("10" and "ten") say
            the same. In other languages it would drop umlauts and words ("um" is a filler to it).

    Returns:
        The text with single spaces between its words: the same words as ``text`` to the normaliser,
        or, in other languages, but for case and punctuation.
    """
    plain = normalise if english else _plain
    wanted, heard = text.split(), transcript.split()
    if not wanted or not heard:
        return " ".join(wanted)
    written: list[str] = []
    matcher = difflib.SequenceMatcher(None, _keys(wanted), _keys(heard), autojunk=False)
    for _, start, end, low, high in matcher.get_opcodes():
        ours, theirs = wanted[start:end], heard[low:high]
        if not ours:
            continue
        if not theirs and written:  # the base missed these words: its stop comes after them
            written[-1] = _unstopped(written[-1])
        if theirs and plain(" ".join(ours)) == plain(" ".join(theirs)):
            written += theirs
        elif theirs:
            written += [*ours[:-1], _unstopped(ours[-1]) + _stop(theirs[-1])]
        else:
            written += ours
    styled = " ".join([*written[:-1], _unstopped(written[-1]) + _stop(heard[-1])])
    # Words that are the same by themselves may differ in their context: "double 16".
    return styled if plain(styled) == plain(text) else " ".join(wanted)


def _keys(words: list[str]) -> list[str]:
    return [_EDGES.sub("", word).lower() for word in words]


def _plain(text: str) -> str:
    return " ".join(_keys(text.split()))


def _stop(word: str) -> str:
    match = _STOP.search(word)
    return match.group() if match else ""


def _unstopped(word: str) -> str:
    return _STOPS.sub("", word)
