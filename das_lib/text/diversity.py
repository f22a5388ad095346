"""How varied a domain's texts are, in figures: distinct n-grams, self-BLEU, new words, coverage."""

import random
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

from sacrebleu.metrics.bleu import BLEU

from das_lib.text.filters import normal_form

SELF_BLEU_SAMPLE = 200
NEW_WORDS_EVERY = 1000  # texts

Words = list[str]


def diversity(texts: Sequence[str], seed: int) -> dict[str, Any]:
    """Figures of texts in the order in which they would be spoken.

    Returns:
        ``texts`` and ``words``; ``vocabulary``: different words; ``distinct_1`` to ``distinct_3``:
        different n-grams over all (Li 2016); ``self_bleu``: mean BLEU-4, 0 to 100, of a sample's
        texts, each against the others (Zhu 2018; lower is more varied), None below two texts;
        ``new_words_per_1000``: words seen for the first time in each thousand texts.
    """
    words = [normal_form(text).split() for text in texts]
    seen: set[str] = set()
    new_words = []
    for start in range(0, len(words), NEW_WORDS_EVERY):
        part = {word for text in words[start : start + NEW_WORDS_EVERY] for word in text}
        new_words.append(len(part - seen))
        seen |= part
    return {
        "texts": len(texts),
        "words": sum(map(len, words)),
        "vocabulary": len(seen),
        **{f"distinct_{n}": round(distinct(words, n), 4) for n in (1, 2, 3)},
        "self_bleu": self_bleu(words, seed),
        "new_words_per_1000": new_words,
    }


def distinct(texts: Iterable[Words], n: int) -> float:
    """Part of all n-grams of words that differ, 0 to 1."""
    total, different = 0, set[tuple[str, ...]]()
    for words in texts:
        grams = list(zip(*(words[i:] for i in range(n)), strict=False))
        total += len(grams)
        different.update(grams)
    return len(different) / max(total, 1)


def self_bleu(texts: Sequence[Words], seed: int) -> float | None:
    """Mean BLEU-4 of a random sample's texts, each against all others of the sample."""
    sample = [" ".join(words) for words in texts]
    if len(sample) > SELF_BLEU_SAMPLE:
        sample = random.Random(seed).sample(sample, SELF_BLEU_SAMPLE)
    if len(sample) < 2:
        return None
    bleu = BLEU(effective_order=True, tokenize="none")
    scores = [
        bleu.sentence_score(text, [*sample[:place], *sample[place + 1 :]]).score
        for place, text in enumerate(sample)
    ]
    return round(sum(scores) / len(scores), 2)


def coverage(texts: Iterable[str], names: Collection[str]) -> dict[str, Any]:
    """How many of some names (entities, keywords) the texts mention, as whole words.

    Returns:
        ``names``; ``covered``: those in any text; ``least`` and ``most``: texts that mention the
        rarest and the commonest; ``missing``: up to ten that none mentions.
    """
    forms = {normal_form(name): name for name in names}
    longest = max((len(form.split()) for form in forms), default=0)
    counts = dict.fromkeys(forms, 0)
    for text in texts:
        words = normal_form(text).split()
        grams = {
            " ".join(words[start : start + n])
            for n in range(1, longest + 1)
            for start in range(len(words) - n + 1)
        }
        for form in grams & counts.keys():
            counts[form] += 1
    missing = [forms[form] for form, count in counts.items() if not count]
    return {
        "names": len(counts),
        "covered": len(counts) - len(missing),
        "least": min(counts.values(), default=0),
        "most": max(counts.values(), default=0),
        "missing": missing[:10],
    }


def rare_words(texts: Iterable[str], vocabulary: Mapping[str, int]) -> float:
    """Part of the different words that the base's tokenizer has no token for.

    An estimate of what the base has seldom heard: a word that it writes in pieces is rare in what
    it was trained on.

    Args:
        texts: In written form.
        vocabulary: Tokens of the base; in Whisper's, ``Ġ`` stands for the space before a word.
    """
    words = {word for text in texts for word in normal_form(text).split()}
    whole = {token.removeprefix("Ġ").casefold() for token in vocabulary if token.startswith("Ġ")}
    return len(words - whole) / max(len(words), 1)
