"""Rows that the tests of the text stage share."""

import pytest

from das_lib.config.tree import Domain, Seed


@pytest.fixture
def music() -> Domain:
    seed = Seed(
        use_case="question generation in English",
        skills=("English singer", "English album name", "English song title"),
        persona="teenager",
        instruction="Generate questions about music that one would ask a voice assistant.",
    )
    return Domain(name="music", utterances=12, held_out=3, seeds=(seed,))
