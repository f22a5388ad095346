"""`das bench texts`: how many of a run's texts are on their domain, by a judge.

The judge is a logistic regression on the vectors of a sentence embedder. It learns from known
texts: the domains' own (shared data: a large model wrote them), and of no domain what LibriSpeech
reads and `unrelated.txt`. Every fifth known text is kept back, and says how far the judge can be
trusted: its `recall` on texts that are on the domain, its `false_alarms` on those that are not.
"""

import json
import os
import random
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from das_lib.bench.timing import publish
from das_lib.dataset import Dataset
from das_lib.errors import DasError
from das_lib.models import resolve_model
from das_lib.storage import Folder
from das_lib.text.relevance import Embed, sentence_embedder
from schemas.text import TEXTS

NONE = "none"
KEPT_BACK = 5
SAMPLE = 50
UNRELATED = Path(__file__).parents[1] / "text" / "unrelated.txt"


def bench_texts(folders: Sequence[str], model: str, seed: int = 0) -> None:
    """Judge texts datasets, print a sample of each with the verdicts, publish the shares.

    Raises:
        DasError: there are no known texts of a dataset's domain, or no such dataset.
    """
    embed = sentence_embedder(resolve_model(model))
    known = known_texts()
    judge = Judge(embed, known)
    rows = []
    for folder in folders:
        name = folder.rstrip("/").rsplit("/", 1)[-1].rsplit("-", 1)[0]
        if name not in known:
            raise DasError(f"{folder}: no texts of the domain {name!r} are known, only {[*known]}")
        texts = Dataset(Folder(folder), TEXTS, "texts", name).read(["text"])["text"].to_pylist()
        verdicts = judge.verdicts(texts)
        for at in sorted(random.Random(seed).sample(range(len(texts)), min(SAMPLE, len(texts)))):
            print(f"{verdicts[at]:<10}{texts[at]}", file=sys.stderr)
        summary = json.loads((Path(folder) / "diversity.json").read_text())
        rows.append(
            {
                "domain": name,
                "texts": len(texts),
                "accepted_share": summary["accepted_share"],
                "on_domain": verdicts.count(name) / len(texts),
                **judge.trust(name),
            }
        )
    publish("texts", rows)


class Judge:
    """Which domain a text is on, or `NONE`."""

    def __init__(self, embed: Embed, known: Mapping[str, Sequence[str]]) -> None:
        """Learn from four fifths of the known texts."""
        from sklearn.linear_model import LogisticRegression

        self._embed = embed
        vectors = {name: embed(texts) for name, texts in known.items()}
        self._back = {name: found[::KEPT_BACK] for name, found in vectors.items()}
        rest = {
            name: np.delete(found, np.s_[::KEPT_BACK], axis=0) for name, found in vectors.items()
        }
        labels = np.repeat([*rest], [len(found) for found in rest.values()])
        self._model = LogisticRegression(C=10, max_iter=1000, class_weight="balanced")
        self._model.fit(np.concatenate([*rest.values()]), labels)

    def verdicts(self, texts: Sequence[str]) -> list[str]:
        """The domain of each text."""
        return self._named(self._embed(texts))

    def trust(self, name: str) -> dict[str, Any]:
        """How often the judge is right on known texts that it has not seen."""
        others = np.concatenate([found for other, found in self._back.items() if other != name])
        return {
            "recall": self._named(self._back[name]).count(name) / len(self._back[name]),
            "false_alarms": self._named(others).count(name) / len(others),
        }

    def _named(self, vectors: NDArray[np.float32]) -> list[str]:
        return [str(name) for name in self._model.predict(vectors)]


def known_texts() -> dict[str, list[str]]:
    """Texts by domain, and those of none.

    Raises:
        DasError: the shared data is not there.
    """
    shared = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data"))
    files = sorted((shared / "texts").glob("*.jsonl"))
    if not files:
        raise DasError(f"{shared / 'texts'} has no *.jsonl; set DAS_SHARED_DATA to the shared data")
    known = {file.stem: [t for row in _lines(file) for t in row["texts"]] for file in files}
    read = sorted((shared / "speech").glob("librispeech_*/manifest.jsonl"))
    known[NONE] = UNRELATED.read_text("utf-8").splitlines()
    known[NONE] += [row["text"].lower() for file in read for row in _lines(file)]
    return known


def _lines(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text("utf-8").splitlines()]
