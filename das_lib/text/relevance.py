"""Whether a text is on its domain: nearer to what describes the domain than to other topics.

Small models drift off: asked for questions about music, one of 135 million parameters also asks how
to make money. The texts, the domain's own words (its seeds' skills and instructions, its name) and
a list of everyday topics (``topics.txt``) become vectors of a sentence embedder; topics that are
close to the domain are left out. A text is on the domain if the nearest of the domain's words is
nearer than the nearest topic, by a margin.
"""

from collections.abc import Callable, Sequence
from importlib import resources
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from das_lib.config.tree import Domain

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""N texts to vectors of length 1. [N, D]"""

CLOSE = 0.45
"""Cosine above which a topic is the domain's own."""
BATCH = 64
MAX_TOKENS = 64


class Relevance:
    """Tells how much nearer texts are to a domain than to other topics."""

    def __init__(self, embed: Embed, own: Sequence[str], topics: Sequence[str]) -> None:
        """Place the domain.

        Args:
            embed: The embedder.
            own: What describes the domain.
            topics: What other texts are about.
        """
        self._embed = embed
        self._own = embed(own)
        others = embed(topics)
        self._others = others[(others @ self._own.T).max(1) < CLOSE]

    def leads(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N]: cosine with the domain's nearest word less that with the nearest other topic."""
        if not texts:
            return np.zeros(0, np.float32)
        vectors = self._embed(texts)
        own = (vectors @ self._own.T).max(1)
        return own - (vectors @ self._others.T).max(1, initial=-1.0)


def describe_domain(domain: Domain) -> list[str]:
    """The words that describe a domain: its name, and its seeds' skills and instructions.

    A skill has the domain's name beside it: "city" alone draws in all that is said of cities.
    """
    words = [domain.name, f"questions about {domain.name}"]
    for seed in domain.seeds:
        words += [*(f"{skill} ({domain.name})" for skill in seed.skills), seed.instruction]
    return list(dict.fromkeys(words))


def topics() -> list[str]:
    """The everyday topics."""
    return resources.files("das_lib.text").joinpath("topics.txt").read_text("utf-8").splitlines()


def sentence_embedder(folder: Path) -> Embed:
    """Mean of the last hidden states of a BERT-like model, as sentence-transformers pools them."""
    import torch
    from transformers import AutoModel, AutoTokenizer
    from transformers.utils import logging

    logging.disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, use_safetensors=True).eval()

    @torch.inference_mode()
    def embed(texts: Sequence[str]) -> NDArray[np.float32]:
        parts = []
        for start in range(0, len(texts), BATCH):
            batch = tokenizer(
                list(texts[start : start + BATCH]),
                padding=True,
                truncation=True,
                max_length=MAX_TOKENS,
                return_tensors="pt",
            )
            states = model(**batch).last_hidden_state
            mask = batch["attention_mask"][..., None]
            sums = (states * mask).sum(1) / mask.sum(1)
            parts.append(torch.nn.functional.normalize(sums, dim=-1).numpy())
        return np.concatenate(parts)

    return embed
