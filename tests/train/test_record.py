"""The curve and the card of a training."""

import pyarrow.parquet as pq
import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from das_lib.train.fit import fit
from schemas.adapters import CURVE
from schemas.validate import validate


def events(folder):
    """Values by step of each scalar."""
    found = EventAccumulator(str(folder)).Reload()
    tags = found.Tags()["scalars"]
    return {tag: {e.step: e.value for e in found.Scalars(tag)} for tag in tags}


@pytest.mark.parametrize("validation", [0, 0.2])
def test_a_training_leaves_its_curve_and_says_what_was_done(
    make_features, make_job, tmp_path, validation
):
    job = make_job(make_features(10), validation=validation)
    for _ in range(2):  # a repeated training replaces its record
        result = fit(job, on_epoch=lambda fitter: None)
    curve = pq.read_table(tmp_path / "curves" / "lora_music" / "curve.parquet")
    validate(curve, CURVE, id_column=None)
    history = result["history"]
    assert curve["loss"].to_pylist() == [m["loss"] for m in history]
    assert curve["validation_loss"].to_pylist() == [m.get("validation_loss") for m in history]
    scalars = events(tmp_path / "curves" / "lora_music")
    losses = {m["step"]: m["loss"] for m in history}
    assert scalars["train/loss"] == pytest.approx(losses)
    assert ("train/validation_loss" in scalars) == bool(validation)
    card = (tmp_path / "results" / "lora_music" / "README.md").read_text()
    front = yaml.safe_load(card.split("---")[1])
    assert (front["base_model"], front["library_name"]) == ("openai/whisper-base", "peft")
    assert "| `train.learning_rate` | `0.003` |" in card
    assert f"Kept: epoch {result['best_epoch']} of 2" in card
    said = "8 utterances (train), 2 utterances (validation)" if validation else "10 utterances"
    assert said in card
