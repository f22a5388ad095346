"""The judge of `das bench texts`."""

import numpy as np
import pytest

from das_lib.bench.texts import NONE, Judge

KNOWN = {
    "music": [f"song {n}" for n in range(20)],
    "sports": [f"goal {n}" for n in range(20)],
    NONE: [f"bread {n}" for n in range(20)],
}


def embed(texts):
    """The first word as an axis; every tenth song looks like a goal."""
    axes = {"song": 0, "goal": 1, "bread": 2}
    found = np.zeros((len(texts), 3), np.float32)
    for row, text in zip(found, texts, strict=True):
        word, number = text.split()
        row[axes["goal" if word == "song" and number == "10" else word]] = 1
    return found


def test_the_judge_names_the_domain_and_says_how_often_it_errs():
    judge = Judge(embed, KNOWN)
    assert judge.verdicts(["song 77", "bread 77", "goal 77"]) == ["music", NONE, "sports"]
    # Kept back are 0, 5, 10 and 15 of each; song 10 is taken for sports.
    assert judge.trust("music") == {"recall": 3 / 4, "false_alarms": 0}
    assert judge.trust("sports") == {"recall": 1, "false_alarms": pytest.approx(1 / 8)}
