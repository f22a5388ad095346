"""The benchmarks on a tiny model: what they print, and that parity notices a wrong token."""

import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import torch
from adml_helpers import clips, random_adapter

from das_lib.adml import Adml, Transcriber
from das_lib.bench.__main__ import main
from das_lib.bench.parity import Branches, edits, same_choices
from das_lib.bench.train import EncodingData, speech_table
from das_lib.testing import tiny_whisper
from das_lib.train.data import FeatureData
from das_lib.train.features import EncodeFeatures


@pytest.fixture(scope="module")
def material(tmp_path_factory):
    """A tiny model, a manifest of four clips, and two adapters."""
    folder = tmp_path_factory.mktemp("bench")
    tiny = tiny_whisper(folder / "tiny", d_model=32)
    rows = []
    for i, clip in enumerate(clips(4)):
        soundfile.write(folder / f"{i}.flac", clip, 16_000)
        rows.append(json.dumps({"audio": f"{i}.flac", "text": "some words"}))
    (folder / "manifest.jsonl").write_text("\n".join(rows))
    adapters = [random_adapter(folder / f"a{i}", tiny, seed=i) for i in (1, 2)]
    return tiny, folder / "manifest.jsonl", adapters


def run(monkeypatch, capsys, material, bench, *options):
    """Exit status, the JSON of a benchmark, and its table."""
    tiny, manifest, _ = material
    argv = ["das-bench", bench, "--model", str(tiny), "--audio", str(manifest), "--threads", "1"]
    monkeypatch.setattr(sys, "argv", [*argv, *options])
    status = main()
    printed = capsys.readouterr()
    return status, json.loads(printed.out or "null"), printed.err


def test_adml_prints_a_row_for_each_k_and_batch_with_the_figures_named(
    monkeypatch, capsys, material
):
    options = ("--k", "0,2", "--batch", "1,2", "--rounds", "2", "--passes", "5")
    status, value, table = run(monkeypatch, capsys, material, "adml", *options)
    assert status == 0
    assert value["bench"] == "adml"
    assert value["machine"]["threads"] == 1
    assert [(row["k"], row["batch"]) for row in value["rows"]] == [(0, 1), (2, 1), (0, 2), (2, 2)]
    for row in value["rows"]:
        assert {"dtype", "window_s", "ms_per_pass", "sequential_ms", "rtf"} <= row.keys()
        assert row["ms_per_utterance"] > 0
        assert row["overhead"] == 0 if row["k"] == 0 else row["overhead"] > -1
    assert "table VI" in table


def test_the_profile_adds_up_to_the_whole(monkeypatch, capsys, material):
    options = ("--k", "1", "--batch", "1", "--rounds", "1", "--passes", "4", "--profile")
    _, value, _ = run(monkeypatch, capsys, material, "adml", *options)
    parts = {row["part"]: row["share"] for row in value["rows"]}
    assert {"mel", "encoder", "cross-KV", "steps", "vocabulary", "selection"} <= parts.keys()
    assert sum(parts.values()) == pytest.approx(1, abs=0.05)


def test_parity_finds_every_token_of_the_engine_in_the_stock_models(monkeypatch, capsys, material):
    _, _, adapters = material
    options = [f"--adapter=a{i}={folder}" for i, folder in enumerate(adapters)]
    status, value, _ = run(monkeypatch, capsys, material, "parity", "--utterances", "3", *options)
    assert status == 0
    exact, weights, half, stock = value["rows"]
    assert exact["utterances_equal"] == exact["utterances"] == 3
    assert exact["tokens"] > 10
    assert (exact["token_edits"], exact["agreement"]) == (0, 1)
    assert exact["choices_equal"] == exact["tokens"] > 0
    assert [row["dtype"] for row in (weights, half)] == ["bfloat16", "bfloat16-all"]
    assert half["tokens"] == weights["tokens"] == exact["tokens"]
    assert half["agreement"] <= 1
    assert 0.5 < weights["agreement"] <= 1
    assert stock["wer_base"] == exact["wer_base"]


def test_modes_are_measured_against_the_exact_one(monkeypatch, capsys, material):
    options = ("--utterances", "2", "--rounds", "1")
    status, value, _ = run(monkeypatch, capsys, material, "modes", *options)
    assert status == 0
    rows = {row["mode"]: row for row in value["rows"]}
    assert rows["float32"]["agreement"] == rows["float32"]["ratio"] == 1
    assert rows["float32"]["wer_change"] == 0
    # The tiny model hears 1 s, less than the shortest window: nothing changes.
    assert rows["window: clip + 2 s"]["agreement"] == 1
    assert rows["int8"]["agreement"] <= 1


def test_training_is_measured_with_and_without_cached_features(monkeypatch, capsys, material):
    options = ("--utterances", "4", "--batch", "2", "--rounds", "1")
    status, value, _ = run(monkeypatch, capsys, material, "train", *options)
    assert status == 0
    rows = {row["what"]: row for row in value["rows"]}
    assert [row["cached"] for row in rows.values()] == [True, False, True, False, False]
    assert all(row["samples_per_s"] > 0 for row in rows.values())
    assert rows["cached"]["ratio"] > 0
    assert rows["features"]["against"] == rows["features-base-style"]["against"] == "encoder"


def test_features_made_again_are_those_of_the_cache(material, tmp_path):
    tiny, _, _ = material
    encode = EncodeFeatures(tiny, "en")
    table = speech_table(clips(4), ["some words"] * 4)
    file = str(tmp_path / "features.parquet")
    pq.write_table(encode(table).rows, file)
    kept = {row["id"]: row["encoded"] for row in FeatureData([file]).rows(0, 0)}

    def again(ids):
        rows = [np.frombuffer(kept[i], np.float16).reshape(50, -1) for i in ids]
        return np.stack(rows)

    cached, made = FeatureData([file]), EncodingData([file], again, 3)
    for one, other in zip(cached.batches(1, 2, 2), made.batches(1, 2, 2), strict=True):
        assert torch.equal(one.encoded, other.encoded)
        assert torch.equal(one.targets, other.targets)


def test_the_stock_models_would_notice_another_token(material):
    tiny, _, adapters = material
    branches = Branches.load(tiny, {str(i): folder for i, folder in enumerate(adapters)})
    named = {str(i): folder for i, folder in enumerate(adapters)}
    engine = Transcriber.from_pretrained(tiny, named, language="en")
    rows = engine.transcribe(clips(8), {"das": Adml()})
    clip, tokens = max(
        ((clip, row["das"].tokens) for clip, row in zip(clips(8), rows, strict=True)),
        key=lambda pair: len(pair[1]),
    )
    assert len(tokens) > 3
    [mel] = engine.features([clip])
    assert branches.choices(mel, tokens, 0.025) == tokens
    assert same_choices(engine, [clip], [tokens], tau=0.025) == len(tokens)
    # The last token is behind the same prefix as ever, and no other choice follows it.
    assert same_choices(engine, [clip], [[*tokens[:-1], 50]], tau=0.025) == len(tokens) - 1
    tokens[2] = 50
    assert branches.choices(mel, tokens, 0.025) != tokens


def test_a_transcript_that_runs_on_does_not_agree():
    assert edits([1, 2, 3], [1, 2, 3]) == 0
    assert edits([1, 9, 3, 4], [1, 2, 3, 4]) == 1
    assert edits([1, 3, 4], [1, 2, 3, 4]) == 1
    assert edits([1, 2, 2, 2, 2], [1, 2]) == 3
    assert edits([1, 2], []) == 2
    assert edits([], [1, 2]) == 2


def test_a_manifest_that_is_not_there_is_named_with_the_option(monkeypatch, capsys, material):
    tiny, _, _ = material
    argv = ["das-bench", "adml", "--model", str(tiny), "--audio", "nowhere.jsonl"]
    monkeypatch.setattr(sys, "argv", argv)
    assert main() == 2
    assert "--audio: nowhere.jsonl cannot be read" in capsys.readouterr().err


def test_a_long_recording_is_measured_beside_its_clips(monkeypatch, capsys, material):
    options = ("--minutes", "0.1", "--recordings", "2", "--rounds", "1", "--precision", "float32")
    status, value, _ = run(monkeypatch, capsys, material, "longform", *options, "--no-peers")
    assert status == 0
    heard, windows = value["rows"]
    assert 0.2 <= heard["minutes"] == windows["minutes"] < 0.4
    assert heard["wer"] is not None
    assert heard["wer_clips"] > 0
    assert heard["above_clips"] == pytest.approx(heard["wer"] - heard["wer_clips"])
    assert heard["above_clips_low"] <= heard["above_clips"] <= heard["above_clips_high"]
    assert heard["rtfx"] > 0


def test_sets_take_turns_until_each_has_ended(material, tmp_path):
    from das_lib.bench.material import read_sets

    _, manifest, _ = material
    row = {"audio": str(manifest.parent / "0.flac"), "text": "the only one"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(row))
    texts = [text for _, text in read_sets([manifest, tmp_path / "manifest.jsonl"], 3)]
    assert texts == ["some words", "the only one", "some words", "some words"]


def test_clips_come_again_from_the_start_where_there_are_too_few(material):
    from das_lib.bench.material import read_clips

    _, manifest, _ = material
    got = read_clips(manifest, 6)
    assert len(got) == 6
    np.testing.assert_array_equal(got[4], got[0])
