import json
from pathlib import Path

from safetensors.torch import load_file

from das_lib.train.fit import fit


def test_a_job_ends_with_an_adapter_and_one_entry_of_history_an_epoch(make_features, make_job):
    job = make_job(make_features(10))
    steps, epochs = [], []
    result = fit(
        job,
        on_epoch=lambda fitter: epochs.append(fitter.epoch),
        on_step=lambda step, total, loss: steps.append((step, total)),
    )
    assert (result["steps"], epochs) == (6, [1, 2])
    assert steps == [(s, 6) for s in range(1, 7)]
    assert [m["epoch"] for m in result["history"]] == [1, 2]
    config = json.loads((Path(job.out_dir) / "adapter_config.json").read_text())
    assert (config["r"], config["base_model_name_or_path"]) == (8, "openai/whisper-base")


def test_a_job_that_goes_on_from_a_checkpoint_writes_the_same_adapter(
    make_features, make_job, tmp_path
):
    job = make_job(make_features(10))
    stored = Path(job.out_dir) / "adapter_model.safetensors"
    kept = tmp_path / "kept"
    kept.mkdir()
    fit(job, on_epoch=lambda f: f.save(kept) if f.epoch == 1 else None)
    whole = load_file(stored)
    epochs = []
    result = fit(job, on_epoch=lambda f: epochs.append(f.epoch), checkpoint=kept)
    assert (epochs, result["steps"]) == ([2], 6)
    resumed = load_file(stored)
    assert all((whole[name] == resumed[name]).all() for name in whole)


def test_an_anchored_job_goes_on_with_the_same_utterances(make_features, make_job, tmp_path):
    others = make_features(3, name="others", seed=1)  # fewer than an epoch needs: several laps
    job = make_job(make_features(10), anchor=[others], weight=2)
    stored, kept = Path(job.out_dir) / "adapter_model.safetensors", tmp_path / "kept"
    kept.mkdir()
    fit(job, on_epoch=lambda f: f.save(kept) if f.epoch == 1 else None)
    whole = load_file(stored)
    fit(job, on_epoch=lambda f: None, checkpoint=kept)
    resumed = load_file(stored)
    assert all((whole[name] == resumed[name]).all() for name in whole)
    fit(make_job(make_features(10)), on_epoch=lambda f: None)
    assert any((whole[name] != tensor).any() for name, tensor in load_file(stored).items())


def test_what_is_excluded_is_not_learnt(make_features, make_job):
    files = make_features(10)
    losses = {}
    for name, excluded in {"all": (), "some": ("row-0001", "row-0004", "elsewhere")}.items():
        job = make_job(files, system=f"lora:{name}", excluded=excluded, validation=0.2)
        losses[name] = fit(job, on_epoch=lambda fitter: None)["history"][0]["loss"]
        card = (Path(job.out_dir) / "README.md").read_text()
        count = 10 if name == "all" else 8
        assert f"{count - 2} utterances (train), 2 utterances (validation)" in card
    assert losses["all"] != losses["some"]
