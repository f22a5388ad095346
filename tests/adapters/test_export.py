"""An adapter as a whole model: the transcripts are those that it gives on its base."""

import sys

import ctranslate2
import pytest
import torch
from adml_helpers import clips
from peft import PeftModel
from transformers import WhisperForConditionalGeneration, WhisperTokenizer

from das_lib.adapters.export import export_ct2, export_hf
from das_lib.adml import Fixed, Transcriber
from das_lib.errors import DasError

LIMIT = 12


def transcripts(model, adapters, branch):
    options = {"language": "en", "max_new_tokens": LIMIT}
    engine = Transcriber.from_pretrained(model, adapters, **options)
    return [row["x"].tokens for row in engine.transcribe(clips(4), {"x": Fixed(branch)})]


@pytest.mark.parametrize("pissa", [False, True])
def test_the_merged_model_is_the_adapter_on_its_base(base, make_adapter, tmp_path, pissa):
    adapter = make_adapter(seed=1, pissa=pissa, size=1.0 if pissa else 0.2)
    export_hf(adapter, base, tmp_path / "out")
    stock = WhisperForConditionalGeneration.from_pretrained(tmp_path / "out").eval()
    load = WhisperForConditionalGeneration.from_pretrained
    plain, adapted = load(base).eval(), PeftModel.from_pretrained(load(base), adapter).eval()
    call = {
        "input_features": torch.randn(2, 20, 100),
        "decoder_input_ids": torch.tensor([[257]] * 2),
    }
    with torch.inference_mode():
        got, want, before = (m(**call).logits for m in (stock, adapted, plain))
    torch.testing.assert_close(got, want, atol=1e-4, rtol=1e-4)
    assert (want - before).abs().max() > 0.01
    assert transcripts(tmp_path / "out", {}, 0) == transcripts(base, {"a": adapter}, 1)
    assert WhisperTokenizer.from_pretrained(tmp_path / "out").get_vocab()


def test_faster_whispers_engine_decodes_it_alike(base, make_adapter, tmp_path):
    adapter = make_adapter(seed=1, size=0.2)
    export_ct2(adapter, base, tmp_path / "out")
    engine = Transcriber.from_pretrained(base, {"a": adapter}, language="en", max_new_tokens=LIMIT)
    mel = engine.features(clips(4)).numpy()
    model = ctranslate2.models.Whisper(str(tmp_path / "out"), compute_type="float32")
    prompt = engine.engine.prompts.build(["en"])[0].tolist()
    found = model.generate(
        ctranslate2.StorageView.from_array(mel), [prompt] * 4, beam_size=1, max_length=2 * LIMIT
    )
    wanted = transcripts(base, {"a": adapter}, 1)
    for got, want in zip((r.sequences_ids[0] for r in found), wanted, strict=True):
        end = want.index(256) if 256 in want else LIMIT
        assert got[:end] == want[:end]
    assert len({tuple(w) for w in wanted}) > 1


def test_nothing_is_overwritten_and_a_failure_leaves_nothing(
    base, make_adapter, tmp_path, monkeypatch
):
    adapter = make_adapter(seed=1)
    (tmp_path / "there").mkdir()
    for export in (export_hf, export_ct2):
        with pytest.raises(DasError, match="there exists"):
            export(adapter, base, tmp_path / "there")
    before = sorted(p.name for p in tmp_path.iterdir())
    monkeypatch.setattr("das_lib.adml.checkpoint.save_file", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        export_hf(adapter, base, tmp_path / "out")
    assert sorted(p.name for p in tmp_path.iterdir()) == before


def test_without_ctranslate2_the_remedy_is_named(base, make_adapter, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "ctranslate2.converters", None)
    with pytest.raises(DasError, match="pip install ctranslate2"):
        export_ct2(make_adapter(seed=1), base, tmp_path / "out")
