import pytest
import torch
import torch.multiprocessing as mp
from safetensors.torch import load_file

from das_lib.config.tree import Lora, Train
from das_lib.errors import DasError
from das_lib.train.base import load_base
from das_lib.train.data import FeatureData, split_off
from das_lib.train.loop import Fitter, learning_rate
from das_lib.train.lora import make_peft_model

LORA = Lora(rank=4, alpha=8, init="pissa")
VALIDATION = 0.15


def fitter(base, files, *, rank=0, world=1, **train) -> Fitter:
    plain = {"learning_rate": 3e-3, "epochs": 3, "batch_size": 4, "validation": 0}
    recipe = Train(**{**plain, **train})
    model = make_peft_model(load_base(base), LORA, 0)
    data, validation = split_off(files, recipe.validation)
    options = {"validation": validation, "rank": rank, "world": world}
    return Fitter(model.base_model.model, data, recipe, seed=1, name="lora:music", **options)


def weights(f: Fitter) -> dict[str, torch.Tensor]:
    return {n: t.clone() for n, t in f.state_dict()[0].items()}


def same(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)


def test_the_rate_warms_up_in_a_line_and_falls_in_a_line_to_zero():
    rates = [learning_rate(s, 20, 1.0, 0.1) for s in range(20)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    falls = [a - b for a, b in zip(rates[2:], [*rates[3:], 0.0], strict=True)]
    assert falls == pytest.approx([1 / 18] * 18)
    assert learning_rate(0, 1, 1.0, 0.0) == 1.0


def test_the_loss_falls_when_it_sees_the_same_rows_again(base, make_features):
    f = fitter(base, make_features(8), epochs=30, learning_rate=1e-2)
    losses = [f.run_epoch(epoch)["loss"] for epoch in range(30)]
    assert losses[-1] < 0.6 * losses[0]
    assert f.step == f.total_steps == 60


def test_the_first_loss_is_the_stock_models_on_text_and_end_tokens(base, make_features):
    files = make_features(6)
    f = fitter(base, files, batch_size=6, epochs=1)
    total, tokens = 0.0, 0
    model = load_base(base).eval()
    for row in FeatureData(files).rows(0, 0):
        encoded = torch.frombuffer(bytearray(row["encoded"]), dtype=torch.float16).float()
        ids = torch.tensor([row["labels"]])
        with torch.no_grad():
            out = model(encoder_outputs=(encoded.view(1, 50, 32),), decoder_input_ids=ids[:, :-1])
        scores = out.logits[0].log_softmax(-1)
        for at in range(row["prompt_length"] - 1, ids.shape[1] - 1):
            total -= scores[at, ids[0, at + 1]].item()
            tokens += 1
    assert f.run_epoch(0)["loss"] == pytest.approx(total / tokens, abs=1e-4)


def test_the_same_seed_gives_the_same_bits(base, make_features):
    files = make_features(10)
    runs = []
    for _ in range(2):
        f = fitter(base, files)
        f.run_epoch(0)
        f.run_epoch(1)
        runs.append(weights(f))
    assert same(*runs)


def test_a_resumed_run_equals_an_undisturbed_one(base, make_features, tmp_path):
    files = make_features(10)
    whole = fitter(base, files)
    for epoch in range(3):
        whole.run_epoch(epoch)
        if epoch == 0:
            whole.save(tmp_path)
    resumed = fitter(base, files)
    resumed.load(tmp_path)
    assert (resumed.epoch, resumed.step) == (1, 3)
    for epoch in range(resumed.epoch, 3):
        resumed.run_epoch(epoch)
    assert same(weights(whole), weights(resumed))
    assert [m["loss"] for m in whole.history] == [m["loss"] for m in resumed.history]
    assert resumed.step == whole.step == 9


def test_the_epoch_that_does_best_on_rows_kept_back_is_kept(base, make_features):
    # Noise cannot be learnt: the loss on other rows soon rises.
    f = fitter(base, make_features(12), epochs=30, learning_rate=3e-2, validation=0.3, patience=4)
    seen = []
    while not f.finished:
        f.run_epoch(f.epoch)
        seen.append(weights(f))
    losses = [m["validation_loss"] for m in f.history]
    assert f.epoch < 30
    assert f.epoch - f.best_epoch == 4
    assert min(losses) == losses[f.best_epoch - 1]
    f.restore_best()
    for name, weight in f._weights.items():
        assert torch.equal(weight, seen[f.best_epoch - 1][f"weight.{name}"])
    assert f._validate(f._validation) == pytest.approx(min(losses))


def test_a_resumed_run_still_knows_its_best_epoch(base, make_features, tmp_path):
    files, recipe = make_features(12), {"learning_rate": 3e-2, "validation": 0.3, "epochs": 6}
    whole = fitter(base, files, **recipe)
    for epoch in range(6):
        whole.run_epoch(epoch)
        if epoch == 3:
            whole.save(tmp_path)
    resumed = fitter(base, files, **recipe)
    resumed.load(tmp_path)
    for epoch in range(4, 6):
        resumed.run_epoch(epoch)
    assert whole.best_epoch < 4, "the test wants a best epoch before the stop"
    assert same(weights(whole), weights(resumed))
    with pytest.raises(DasError, match="is not of this configuration"):
        fitter(base, files, **{**recipe, "validation": 0}).load(tmp_path)


def test_smoothing_changes_the_loss_and_not_the_validation(base, make_features):
    files = make_features(8)
    plain, smooth = (
        fitter(base, files, learning_rate=1e-9, validation=0.3, label_smoothing=s) for s in (0, 0.2)
    )
    one, other = plain.run_epoch(0), smooth.run_epoch(0)
    assert one["loss"] != pytest.approx(other["loss"], rel=1e-3)
    assert one["validation_loss"] == pytest.approx(other["validation_loss"], rel=1e-4)


def test_a_state_of_another_recipe_is_refused(base, make_features, tmp_path):
    files = make_features(10)
    fitter(base, files).save(tmp_path)
    with pytest.raises(DasError, match=r"total_steps=9.*total_steps=15"):
        fitter(base, files, epochs=5).load(tmp_path)


def test_a_loss_that_is_not_finite_names_step_domain_and_remedy(base, make_features):
    f = fitter(base, make_features(8))
    f._whisper.proj_out.weight.data[3] = float("nan")
    with pytest.raises(DasError, match=r"lora:music.*step 1 of 6.*lower train\.learning_rate"):
        f.run_epoch(0)


def test_fewer_utterances_than_a_batch_are_refused(base, make_features):
    with pytest.raises(DasError, match=r"train\.batch_size=4 is more than the 3 utterances"):
        fitter(base, make_features(3))


def _worker(rank: int, base, files, folder) -> None:
    torch.set_num_threads(1)
    address = f"file://{folder}/rendezvous"
    torch.distributed.init_process_group("gloo", init_method=address, rank=rank, world_size=2)
    f = fitter(base, files, rank=rank, world=2, validation=VALIDATION)
    f.run_epoch(0)
    f.run_epoch(1)
    if rank == 0:
        f.save(folder)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_two_workers_train_as_one_does(base, make_features, tmp_path):
    files = make_features(11)  # the last batch has one row: the second worker has none
    one = fitter(base, files, validation=VALIDATION)
    one.run_epoch(0)
    one.run_epoch(1)
    mp.spawn(_worker, args=(base, files, tmp_path), nprocs=2)
    two = fitter(base, files, validation=VALIDATION)
    two.load(tmp_path)
    for loss in ("loss", "validation_loss"):
        assert [m[loss] for m in two.history] == pytest.approx([m[loss] for m in one.history])
    adapter = load_file(tmp_path / "state.safetensors")
    for name, weight in weights(one).items():
        assert torch.allclose(adapter[name], weight, atol=1e-5)
