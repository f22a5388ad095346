"""What a text must be to be spoken: total checks with stable reason codes."""

import re
import unicodedata

from py3langid.langid import MODEL_FILE, LanguageIdentifier

from das_lib.config.tree import Text

MAX_WORD_CHARACTERS = 30  # longer ones are links, hashes and babble
MAX_WORD_SHARE = 0.34  # of one word in a text of at least MIN_REPEAT_WORDS words
MIN_REPEAT_WORDS = 6
NGRAM = 4
LEAST_LANGUAGE = 0.003
"""Least probability of the language wanted. Names of other languages' songs and towns lower it, but
not so far: no English text of the shared data has less, and sentences in other languages have."""

_MARKUP = re.compile(r"[{}<>|\\*_~^=\[\]`\n\t]|(?:https?:|www\.)|#\s|^\s*(?:\d+[.)]|[-•])\s")
_ASSISTANT = re.compile(
    r"^(?:sure|certainly|absolutely|of course|okay|great question)[,!.]"
    r"|^(?:here (?:is|are)|here's) (?:a|an|the|some|your|my|\d+|ten|five|twenty)\b"
    r"|^i(?:'m| am) (?:sorry|happy to|here to|glad to)\b"
    r"|\bas an? (?:ai|artificial intelligence|language model)\b"
    r"|\bi(?:'m| am) an? (?:ai|language model|virtual assistant)\b"
    r"|\bi (?:cannot|can't) (?:assist|help|fulfil)",
    re.IGNORECASE,
)
_WORD = re.compile(r"\w+(?:['’.,:-]\w+)*")
_SYMBOLS = set("$€£¥%°+&/@©®™")


class Filters:
    """The checks of single texts."""

    def __init__(self, limits: Text, language: str | None) -> None:
        """Take the bounds; ``language`` is a code such as ``en``, None lets any pass."""
        self._limits, self._language = limits, language
        self._identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        if language not in self._identifier.labels:
            self._language = None  # nobody can say

    def check(self, text: str) -> str | None:
        """Reason to reject ``text``, or None.

        Reasons: ``too-short``, ``too-long`` (words), ``markup``, ``characters`` (nothing to speak,
        not Latin script, or a word that no one says), ``repetition``, ``assistant-reply``,
        ``language``.
        """
        reason = check_text(text, self._limits)
        if reason is None and self._language is not None:
            likely = dict(self._identifier.rank(text))[self._language]
            reason = "language" if likely < LEAST_LANGUAGE else None
        return reason


def check_text(text: str, limits: Text) -> str | None:
    """Reason to reject ``text``, or None; see `Filters.check`, which knows languages too."""
    words = _WORD.findall(text.casefold())
    if not any(c.isalpha() for c in text):
        return "characters"
    if len(words) < limits.min_words:
        return "too-short"
    if len(words) > limits.max_words:
        return "too-long"
    if _MARKUP.search(text):
        return "markup"
    if not all(map(_speakable, set(text))) or max(map(len, words)) > MAX_WORD_CHARACTERS:
        return "characters"
    if _repeats(words):
        return "repetition"
    if _ASSISTANT.search(text):
        return "assistant-reply"
    return None


def normal_form(text: str) -> str:
    """What two texts share that sound the same: casefolded words without punctuation."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("’", "'")
    return " ".join("".join(c if c.isalnum() or c == "'" else " " for c in plain).split())


def _speakable(character: str) -> bool:
    category = unicodedata.category(character)
    if category[0] == "L":
        return "LATIN" in unicodedata.name(character, "")
    if category[0] in "PZM":
        return True
    return category == "Nd" or character in _SYMBOLS


def _repeats(words: list[str]) -> bool:
    if any(a == b == c for a, b, c in zip(words, words[1:], words[2:], strict=False)):
        return True
    if len(words) < MIN_REPEAT_WORDS:
        return False
    if max(map(words.count, set(words))) > MAX_WORD_SHARE * len(words):
        return True
    grams = list(zip(*(words[i:] for i in range(NGRAM)), strict=False))
    return len(set(grams)) < len(grams)
