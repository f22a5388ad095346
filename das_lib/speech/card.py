"""A speech dataset's card: how much, whose voices, how loud, what was rejected."""

from collections import Counter

import numpy as np

from das_lib.cards import card_head, rejected_section
from das_lib.dataset import Dataset
from das_lib.speech.audio import SAMPLE_RATE
from das_lib.tables import markdown_table

COLUMNS = ["num_samples", "loudness", "voice", "engine", "text", "cer"]


def speech_card(dataset: Dataset) -> str:
    """A Markdown card in the Hugging Face form; reads everything but the audio."""
    seconds: list[float] = []
    per_character: list[float] = []
    optional: dict[str, list[float]] = {"loudness": [], "cer": []}
    voices: Counter[str] = Counter()
    for block in dataset.tables(COLUMNS):
        for row in block.to_pylist():
            seconds.append(row["num_samples"] / SAMPLE_RATE)
            per_character.append(seconds[-1] / len(row["text"]))
            voices[f"{row['voice']} ({row['engine']})"] += 1
            for name, values in optional.items():
                if row[name] is not None:
                    values.append(row[name])
    measured = {
        "seconds a recording": seconds,
        "seconds a character": per_character,
        "loudness, LUFS": optional["loudness"],
        "character error rate of the base": optional["cer"],
    }
    spread = [
        [name, *(f"{value:.3g}" for value in np.percentile(values, [0, 50, 100]))]
        for name, values in measured.items()
        if values
    ]
    front = {"task_categories": ["automatic-speech-recognition"], "tags": ["das", "synthetic"]}
    lines = [
        *card_head(front, f"Speech of the domain {dataset.name}"),
        f"{len(seconds):,} recordings, {sum(seconds) / 3600:.2f} hours: mono 16 kHz FLAC in "
        "Parquet, spoken by machines; made by DAS.",
        "",
        *markdown_table([["measure", "least", "median", "most"], *spread], (1, 2, 3)),
        "",
        *markdown_table([["voice", "recordings"], *([v, str(n)] for v, n in voices.items())], (1,)),
        "",
        *rejected_section(dict(dataset.reasons().most_common()), "texts"),
    ]
    return "\n".join(lines)
