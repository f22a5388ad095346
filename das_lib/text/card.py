"""A texts dataset's card: how varied it is, what was rejected and why, and a sample to read."""

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from das_lib.cards import card_head, rejected_section
from das_lib.errors import ModelError
from das_lib.models import resolve_model
from das_lib.rows import Outcome
from das_lib.tables import markdown_table
from das_lib.text.catalogues import Catalogue
from das_lib.text.diversity import coverage, diversity, rare_words

SAMPLE = 50
FIGURES = "diversity.json"


def figures(
    outcome: Outcome,
    seed: int,
    *,
    keywords: Sequence[str] = (),
    catalogues: Sequence[Catalogue] = (),
    vocabulary: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """What ``diversity.json`` holds.

    Args:
        outcome: Rows of TEXTS and all rejections.
        seed: Draws what self-BLEU is computed on.
        keywords: Metadata that the LLM made.
        catalogues: Of the domain.
        vocabulary: Tokens of the base, where it is at hand.
    """
    texts = outcome.rows["text"].to_pylist()
    candidates = len(texts) + len(outcome.rejects)
    found: dict[str, Any] = {
        "candidates": candidates,
        "accepted_share": round(len(texts) / max(candidates, 1), 4),
        "rejected": dict(Counter(r.reason for r in outcome.rejects).most_common()),
        **diversity(texts, seed),
    }
    if keywords:
        found["keywords"] = coverage(texts, keywords)
    for catalogue in catalogues:
        rejected = dict(Counter(r.reason for r in catalogue.rejects).most_common())
        entry = {**coverage(texts, catalogue.entities), "rejected_lines": rejected}
        found.setdefault("catalogues", {})[catalogue.kind] = entry
    if vocabulary is not None:
        found["out_of_base_vocabulary"] = round(rare_words(texts, vocabulary), 4)
    return found


def base_vocabulary(model: str) -> dict[str, int] | None:
    """Tokens of the base, or None where it cannot be had: the card does without."""
    from transformers import WhisperTokenizer

    try:
        folder = resolve_model(model)
        return WhisperTokenizer.from_pretrained(folder, local_files_only=True).get_vocab()
    except (ModelError, OSError, ValueError, TypeError):
        return None


def card(domain: str, found: Mapping[str, Any], texts: Sequence[str], seed: int) -> str:
    """A Markdown card in the Hugging Face form, with a sample of the texts."""
    plain = {k: v for k, v in found.items() if not isinstance(v, dict | list)}
    named = {"keywords": found.get("keywords"), **found.get("catalogues", {})}
    covered = [
        [kind, f"{c['covered']} of {c['names']}", f"{c['least']} to {c['most']}", _listed(c)]
        for kind, c in named.items()
        if c
    ]
    sample = random.Random(seed).sample(list(texts), min(SAMPLE, len(texts)))
    front = {"tags": ["das", "synthetic", domain], "task_categories": ["text-generation"]}
    new_words = ", ".join(map(str, found["new_words_per_1000"]))
    lines = [
        *card_head(front, f"Texts of the domain {domain}"),
        "Written by a language model, or one's own, for a voice to speak; made by DAS.",
        "",
        *markdown_table([["figure", "value"], *([k, str(v)] for k, v in plain.items())], (1,)),
        "",
        f"New words in each thousand texts: {new_words}.",
        "",
        *rejected_section(found["rejected"], "candidates"),
    ]
    if covered:
        head = ["names", "mentioned", "texts a name", "not mentioned"]
        lines += ["## Coverage", "", *markdown_table([head, *covered]), ""]
    lines += ["## Sample", "", *(f"- {text}" for text in sample), ""]
    return "\n".join(lines)


def _listed(entry: Mapping[str, Any]) -> str:
    shown = ", ".join(entry["missing"])
    more = entry["names"] - entry["covered"] - len(entry["missing"])
    return f"{shown} and {more} more" if more else shown
