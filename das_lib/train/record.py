"""What a training leaves beside the weights: its curve, and a card that says what was done."""

from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from das_lib.cards import card_head
from das_lib.config.tree import TRAIN_PLACEMENT, Section
from das_lib.tables import markdown_table
from das_lib.train.systems import LORA, split_system
from schemas.adapters import CURVE

PARQUET, EVENTS = "curve.parquet", "events.out.tfevents.0.curve"
"""Constant names: a training that is repeated replaces its record."""
NOT_RECIPE = TRAIN_PLACEMENT | {"methods"}
PACKAGES = ("torch", "transformers", "peft", "das-asr")


def write_curve(folder: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Write one entry an epoch as Parquet (CURVE) and as TensorBoard events by optimiser step."""
    from torch.utils.tensorboard import SummaryWriter

    table = pa.Table.from_pylist([dict(entry) for entry in history], schema=CURVE)
    pq.write_table(table, folder / PARQUET)
    with SummaryWriter(str(folder)) as events:
        for entry in history:
            for name in ("loss", "validation_loss", "learning_rate", "samples_per_s"):
                if name in entry:
                    events.add_scalar(f"train/{name}", entry[name], int(entry["step"]))
    [written] = folder.glob("events.out.tfevents.*")
    written.rename(folder / EVENTS)


def model_card(
    system: str,
    base_name: str,
    settings: Mapping[str, Section],
    seed: int,
    utterances: Mapping[str, int],
    result: Mapping[str, Any],
) -> str:
    """A Markdown card in the Hugging Face form.

    Args:
        system: What was made, such as ``lora:music``.
        base_name: The base as the user names it.
        settings: Sections of the configuration that made it, by name.
        seed: Of every random choice.
        utterances: Numbers by use, such as ``{"train": 950, "validation": 50}``.
        result: What `das_lib.train.fit.fit` returns.
    """
    method, learnt = split_system(system)
    front = {
        "base_model": base_name,
        "library_name": "peft" if method == LORA else "transformers",
        "pipeline_tag": "automatic-speech-recognition",
        "tags": ["das", method, "whisper", learnt],
    }
    recipe = {
        f"{section}.{key}": value
        for section, values in settings.items()
        for key, value in values.model_dump(mode="json", exclude=set(NOT_RECIPE)).items()
    } | {"seed": seed}
    validated = "validation_loss" in result["history"][0]
    columns = ["epoch", "step", "loss", *(["validation_loss"] if validated else [])]
    curve = [[f"{entry[c]:.6g}" for c in columns] for entry in result["history"]]
    made = "a LoRA adapter for" if method == LORA else "made from"
    lines = [
        *card_head(front, f"{system}: {made} {base_name}"),
        "Trained by [DAS](https://arxiv.org/abs/2501.12501) on synthetic speech alone: "
        + ", ".join(f"{count} utterances ({use})" for use, count in utterances.items())
        + f". Kept: epoch {result['best_epoch']} of {len(result['history'])}.",
        "",
        *_usage(method, base_name),
        "",
        "## Recipe",
        "",
        *markdown_table([["setting", "value"], *([f"`{k}`", f"`{v}`"] for k, v in recipe.items())]),
        "",
        "## Curve",
        "",
        *markdown_table([columns, *curve]),
        "",
        "## Versions",
        "",
        *markdown_table([["package", "version"], *([name, version(name)] for name in PACKAGES)]),
        "",
        "Word error rates are in the run's report.",
        "",
    ]
    return "\n".join(lines)


def _usage(method: str, base_name: str) -> list[str]:
    if method != LORA:
        code = ['model = WhisperForConditionalGeneration.from_pretrained("this/folder")']
    else:
        code = [
            "model = PeftModel.from_pretrained(",
            f'    WhisperForConditionalGeneration.from_pretrained("{base_name}"), "this/folder"',
            ")",
        ]
    return ["```python", *code, "```"]
