"""What each method trains, and that its folder is what the training ended with."""

from pathlib import Path

import pytest
import torch
from peft import PeftModel
from transformers import WhisperForConditionalGeneration

from das_lib.adml import Fixed, Transcriber
from das_lib.config.tree import Baselines, Lora
from das_lib.errors import DasError
from das_lib.train.base import load_base
from das_lib.train.data import FeatureData
from das_lib.train.fit import fit
from das_lib.train.forward import text_logits
from das_lib.train.methods import make_trainee

TINY_LORA = Lora(rank=4, alpha=8)


def trained(method: str, base: Path, scratch: Path, **settings) -> set[str]:
    """Names of the weights that a method frees, layer by layer."""
    trainee = make_trainee(method, base, "b", TINY_LORA, Baselines(**settings), 0, scratch)
    return {name for name, weight in trainee.whisper.named_parameters() if weight.requires_grad}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return WhisperForConditionalGeneration.from_pretrained(folder).state_dict()


def changed(folder: Path, base: Path) -> set[str]:
    before = weights(base)
    return {
        name for name, weight in weights(folder).items() if not torch.equal(weight, before[name])
    }


def test_a_method_frees_what_its_name_says(base, tmp_path):
    assert all("lora_" in name for name in trained("lora", base, tmp_path))
    decoder = trained("ft-decoder", base, tmp_path)
    assert {name.split(".")[1] for name in decoder} == {"decoder"}
    assert "model.decoder.embed_tokens.weight" in decoder
    last = trained("ft-decoder-last-n", base, tmp_path, last_layers=1)
    assert {name.rsplit(".layers.")[1].split(".")[0] for name in last} == {"1"}
    every = trained("ft-encoder-decoder", base, tmp_path)
    assert every > decoder
    assert "model.encoder.conv1.weight" in every
    assert "model.encoder.embed_positions.weight" not in every


@pytest.mark.parametrize(
    ("method", "settings", "message"),
    [
        ("ft-decoder-last-n", {"last_layers": 5}, "baselines.last_layers=5 is more than .* 2 "),
        ("prompt", {}, "'prompt' is no method"),
    ],
)
def test_what_cannot_be_trained_is_said(base, tmp_path, method, settings, message):
    with pytest.raises(DasError, match=message):
        trained(method, base, tmp_path, **settings)


@pytest.mark.parametrize("method", ["ft-decoder", "ft-decoder-last-n", "ft-encoder-decoder"])
def test_a_fine_tuned_model_is_a_whole_whisper_folder(
    base, make_features, make_spectrograms, make_job, method
):
    files = make_spectrograms(8) if method == "ft-encoder-decoder" else make_features(8)
    job = make_job(files, system=f"{method}:music", epochs=4)
    losses = [m["loss"] for m in fit(job, on_epoch=lambda fitter: None)["history"]]
    assert losses[-1] < losses[0]
    out = Path(job.out_dir)
    free = trained(method, base, out.parent / "scratch", last_layers=1)
    tied = {"proj_out.weight"} if "model.decoder.embed_tokens.weight" in free else set()
    # Some weights get no gradient: positions behind the longest text, keys' biases.
    assert changed(out, base) <= free | tied
    assert any(".encoder." in name for name in changed(out, base)) == ("encoder" in method)
    assert any(".decoder.layers.1." in name for name in changed(out, base))
    clip = torch.randn(16000, generator=torch.Generator().manual_seed(0)).numpy() * 0.1
    for folder in (base, out):  # the engine reads it as it reads any Whisper model
        engine = Transcriber.from_pretrained(folder, language="en", max_new_tokens=8)
        assert engine.transcribe([clip], {"x": Fixed(0)})[0]["x"].text is not None
    assert "`baselines.learning_rate`" in (out / "README.md").read_text()


def test_the_encoder_learns_from_log_mel_as_the_stock_model_does(base, make_spectrograms, make_job):
    files = make_spectrograms(4)
    job = make_job(files, system="ft-encoder-decoder:music", epochs=1, learning_rate=1e-9)
    loss = fit(job, on_epoch=lambda fitter: None)["history"][0]["loss"]
    batch = next(iter(FeatureData(files).batches(0, 0, 4)))
    stock = WhisperForConditionalGeneration.from_pretrained(base).eval()
    with torch.no_grad():
        expected = stock(
            input_features=batch.encoded.mT, decoder_input_ids=batch.inputs, labels=batch.targets
        ).loss
    assert loss == pytest.approx(expected.item(), abs=1e-4)


def test_a_training_on_all_domains_learns_from_each(base, make_features, make_job):
    parts = [make_features(n, name=f"d{n}") for n in (8, 4)]
    job = make_job(*parts, system="lora:multi", validation=0.25)
    result = fit(job, on_epoch=lambda fitter: None)
    assert result["steps"] == 2 * 3  # epochs x (2 domains x 6 rows of the larger) / batch
    assert (
        "9 utterances (train), 3 utterances (validation)"
        in (Path(job.out_dir) / "README.md").read_text()
    )


@pytest.mark.parametrize("system", ["lora:music", "ft-decoder:music"])
@pytest.mark.parametrize("init", ["pissa", "default"])
def test_interpolation_keeps_a_part_of_the_way_from_the_base(
    base, make_features, make_job, tmp_path, system, init
):
    files, changes = make_features(8), {}
    for part in (1, 0.25):
        job = make_job(files, system=system, interpolation=part, lora={"init": init})
        fit(job, on_epoch=lambda fitter: None)
        model = load_base(base)
        if system.startswith("lora"):
            model = PeftModel.from_pretrained(model, job.out_dir).merge_and_unload()
        else:
            model = load_base(Path(job.out_dir))
        before = weights(base)
        changes[part] = {n: w - before[n] for n, w in model.state_dict().items()}
    assert max(c.abs().max() for c in changes[1].values()) > 1e-3
    for name, change in changes[1].items():
        torch.testing.assert_close(changes[0.25][name], 0.25 * change, atol=1e-6, rtol=1e-4)


def test_an_anchor_keeps_the_model_near_the_base_on_other_utterances(base, make_features, make_job):
    files, others = make_features(8, name="own"), make_features(6, name="others", seed=1)
    probe = next(iter(FeatureData(others).batches(0, 0, 6)))
    with torch.no_grad():
        wanted = text_logits(load_base(base), probe).log_softmax(-1)
    distance, losses = {}, {}
    for weight in (0, 3):
        anchor = [others] if weight else []
        job = make_job(files, epochs=15, learning_rate=1e-2, anchor=anchor, weight=weight)
        losses[weight] = fit(job, on_epoch=lambda fitter: None)["history"][-1]["loss"]
        model = PeftModel.from_pretrained(load_base(base), job.out_dir).merge_and_unload()
        with torch.no_grad():
            found = text_logits(model, probe).log_softmax(-1)
        distance[weight] = (wanted.exp() * (wanted - found)).sum(-1).mean().item()
    assert distance[3] < 0.5 * distance[0]
    assert losses[0] != losses[3]
    first = fit(make_job(files, epochs=1), on_epoch=lambda fitter: None)["history"][0]["loss"]
    assert losses[3] < first, "it still learns"
