"""Training on whisper-base: texts are spoken, encoded, fitted, and stock PEFT loads the result."""

import json
import os
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from peft import PeftModel

from das_lib.config.tree import Baselines, Lora, Train, Tts
from das_lib.errors import ModelError
from das_lib.models import resolve_model
from das_lib.speech.speak import SpeakTexts
from das_lib.train.base import load_base
from das_lib.train.data import FeatureData
from das_lib.train.features import EncodeFeatures
from das_lib.train.fit import fit
from das_lib.train.job import FitJob
from das_lib.train.lora import make_peft_model
from schemas.text import TEXTS

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def whisper_base() -> Path:
    try:
        return resolve_model("openai/whisper-base")
    except ModelError as error:
        pytest.skip(f"needs openai/whisper-base: {error}")


@pytest.fixture(scope="module")
def features(whisper_base, tmp_path_factory) -> list[str]:
    file = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data")) / "texts" / "music.jsonl"
    if not file.is_file():
        pytest.skip(f"{file} is missing: set DAS_SHARED_DATA to the shared test data")
    texts = json.loads(file.read_text().splitlines()[0])["texts"][:20]
    rows = [
        {"id": f"t{i:02d}", "domain": "music", "text": text, "split": "train", "source": "file"}
        for i, text in enumerate(texts)
    ]
    try:
        spoken = SpeakTexts(Tts())(pa.Table.from_pylist(rows, schema=TEXTS))
    except ModelError as error:
        pytest.skip(f"needs the Piper voice: {error}")
    encoded = EncodeFeatures(whisper_base, "en", batch_utterances=4)(spoken.rows)
    assert encoded.rows.num_rows + len(spoken.rejects) + len(encoded.rejects) == len(texts)
    assert encoded.rows.num_rows >= 16
    path = str(tmp_path_factory.mktemp("features") / "music.parquet")
    pq.write_table(encoded.rows, path, row_group_size=8)
    return [path]


def test_labels_are_the_tokens_that_whisper_itself_emits(features):
    row = pq.read_table(features[0], columns=["labels", "prompt_length"]).to_pylist()[0]
    # openai/whisper's ids: start, English, transcribe, no timestamps; then text; then the end.
    assert row["labels"][: row["prompt_length"]] == [50258, 50259, 50359, 50363]
    assert row["labels"][-1] == 50257


def test_the_papers_adapter_has_786432_parameters_and_fits_cached_features(
    whisper_base, features, tmp_path
):
    job = FitJob(
        system="lora:music",
        run_name="music-12345678",
        storage_path=str(tmp_path),
        feature_files=(tuple(features),),
        anchor_files=(),
        excluded=(),
        model=str(whisper_base),
        base_name="openai/whisper-base",
        lora=Lora(init="pissa"),
        train=Train(epochs=2, batch_size=8, validation=0, interpolation=1),
        baselines=Baselines(),
        seed=0,
        out_dir=str(tmp_path / "adapter"),
        curve_dir=str(tmp_path / "curve"),
    )
    trainable = []
    result = fit(
        job,
        on_epoch=lambda f: trainable.append(sum(w.numel() for w in f._weights.values())),
    )
    assert trainable == [786_432, 786_432]  # 6 layers x 2 attentions x (q, v) x 2 x 512 x 32
    first, last = result["history"]
    assert last["loss"] < 0.9 * first["loss"]
    stock = PeftModel.from_pretrained(load_base(whisper_base), job.out_dir).eval()
    batch = next(iter(FeatureData(features).batches(0, 0, 4)))
    call = {"encoder_outputs": (batch.encoded,), "decoder_input_ids": batch.inputs}
    with torch.no_grad():
        adapted = stock(**call).logits
        with stock.disable_adapter():
            plain = stock(**call).logits
        untrained = make_peft_model(load_base(whisper_base), job.lora, 0).eval()(**call).logits
    assert (plain - untrained).abs().max() < 1e-3  # PiSSA starts from the base's function
    assert (adapted - plain).abs().max() > 0.1
