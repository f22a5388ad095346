import json
from pathlib import Path

import pytest

from das_lib.config import load_config, parse_config
from das_lib.plan import build_plan
from ray_jobs.train import learnt

ROOT = Path(__file__).parents[1]
SEED = {"use_case": "questions", "skills": ["a"], "persona": "teenager", "instruction": "ask"}


@pytest.fixture
def tree(tmp_path):
    texts = tmp_path / "own.txt"
    texts.write_text("a text of mine\n")
    manifest = tmp_path / "m.jsonl"
    manifest.write_text(json.dumps({"audio": "a.wav", "text": "hello"}) + "\n")
    return {
        "name": "x",
        "output": str(tmp_path / "out"),
        "domains": [
            {"name": "music", "utterances": 9, "held_out": 2, "seeds": [SEED]},
            {"name": "own", "utterances": 9, "texts": str(texts)},
        ],
        "evaluation": {"test_sets": [{"name": "human", "manifest": str(manifest)}]},
    }


def folders(tree):
    plan = build_plan(parse_config(tree))
    return {f"{step.stage}/{step.name}": step.hash for step in plan.steps}


def changed(tree, **sections):
    before, after = folders(tree), folders({**tree, **sections})
    return {name for name in after if before.get(name) != after[name]}


def test_the_same_configuration_has_the_same_folders(tree):
    assert folders(tree) == folders(json.loads(json.dumps(tree)))


def test_own_texts_need_no_llm(tree):
    names = folders(tree)
    assert "texts/own" in names
    assert "replies/own" not in names


def test_tau_changes_only_what_decodes_with_it(tree):
    assert changed(tree, adml={"tau": 0.5}) == {
        "transcripts/das-human",
        "transcripts/das-synthetic_music",
        "report/wer",
    }


def test_baselines_come_beside_what_there_is(tree):
    methods = ["lora-multi", "ft-decoder", "ft-encoder-decoder-multi"]
    new = {n for n in changed(tree, baselines={"methods": methods}) if "transcripts/" not in n}
    assert new == {
        "baselines/lora_multi",
        "baselines/ft-decoder_music",
        "baselines/ft-decoder_own",
        "baselines/ft-encoder-decoder_multi",
        "spectrograms/music",
        "spectrograms/own",
        "report/wer",
    }
    rate = {"methods": methods, "learning_rate": 1e-4}
    before, after = (folders({**tree, "baselines": b}) for b in ({"methods": methods}, rate))
    differ = {n for n in after if before[n] != after[n] and n.startswith("baselines/")}
    assert differ == {n for n in after if n.startswith("baselines/ft")}


def test_an_open_tau_is_chosen_by_transcripts_with_each_margin(tree):
    auto = {"adml": {"tau": "auto"}, "calibration": {"taus": [0.1, 0.2]}}
    new = changed(tree, **auto)
    sets = ("human", "synthetic_music", "synthetic_unrelated")
    assert new == {
        "texts/unrelated",
        "speech/unrelated",
        "corpus/synthetic_unrelated",
        "calibration/tau",
        "report/wer",
        *(f"transcripts/das@{t}-synthetic_{d}" for t in (0.1, 0.2) for d in ("music", "unrelated")),
        *(f"transcripts/das-{name}" for name in sets),
        *(f"transcripts/{s}-synthetic_unrelated" for s in ("base", "lora_music", "lora_own")),
    }
    plan = build_plan(parse_config({**tree, **auto}))
    assert len({step.path for step in plan.steps}) == len(plan.steps)
    stricter = {**auto, "calibration": {"taus": [0.1, 0.2], "max_rise": 0}}
    before, after = folders({**tree, **auto}), folders({**tree, **stricter})
    differ = {n for n in after if before[n] != after[n]}
    assert differ == {"calibration/tau", "report/wer", *(f"transcripts/das-{n}" for n in sets)}


def test_an_anchored_adapter_reads_the_other_domains_and_learns_its_own(tree):
    anchored = {**tree, "train": {"anchor": 1}, "baselines": {"methods": ["lora-multi"]}}
    leaked = {"music": ["m1"], "own": ["o1"]}
    plan = build_plan(parse_config(anchored), leaked)
    step = plan.adapters["music"]
    assert [dep.path for dep in step.deps] == [plan.features[n].path for n in ("music", "own")]
    assert [dep.name for dep in learnt("lora:music", step)] == ["music"]
    assert step.params["excluded"] == ["m1", "o1"], "nor is it anchored on what is tested"
    multi = plan.baselines["lora:multi"]
    assert [dep.name for dep in learnt("lora:multi", multi)] == ["music", "own"]
    plain = build_plan(parse_config(tree), leaked).adapters["music"]
    assert [dep.name for dep in plain.deps] == ["music"]
    assert plain.params["excluded"] == ["m1"]


def test_perturbed_speech_has_features_of_its_own(tree):
    names = changed(tree, augment={"part": 0})
    assert {"features/music", "adapters/music"} <= names
    assert not any(n.startswith(("speech/", "corpus/", "transcripts/base")) for n in names)
    tree["augment"] = {"part": 0}
    without_a_part = changed(tree, augment={"part": 0, "pace": [0.9, 1.1]})
    assert without_a_part == set()


def test_labels_in_the_bases_style_have_features_of_their_own(tree):
    names = changed(tree, train={"style": "text"})
    assert {"features/music", "adapters/music"} <= names
    assert not any(n.startswith(("speech/", "corpus/", "transcripts/base")) for n in names)


def test_another_rule_makes_das_anew_and_another_decode_every_transcript(tree):
    das = {"transcripts/das-human", "transcripts/das-synthetic_music", "report/wer"}
    assert changed(tree, adml={"strategy": "max"}) == das
    everyone = {n for n in folders(tree) if n.startswith(("transcripts/", "report/"))}
    for mode in ({"precision": "int8"}, {"beams": 3}, {"margin_s": 2}, {"fallback": True}):
        assert changed(tree, decode=mode) == everyone


def test_a_new_learning_rate_keeps_speech_features_and_the_base(tree):
    names = changed(tree, train={"learning_rate": 1e-3})
    assert {"adapters/music", "adapters/own", "transcripts/lora_music-human"} <= names
    assert not any(n.startswith(("texts/", "speech/", "features/", "corpus/")) for n in names)
    assert "transcripts/base-human" not in names


def test_a_changed_domain_leaves_the_others_alone(tree):
    music = {**tree["domains"][0], "seeds": [{**SEED, "persona": "pensioner"}]}
    names = changed(tree, domains=[music, tree["domains"][1]])
    assert "texts/music" in names
    assert "transcripts/das-human" in names
    # Only the music domain's held-out speech is new to the other adapter.
    assert {n for n in names if "own" in n} == {"transcripts/lora_own-synthetic_music"}
    assert "transcripts/base-human" not in names


@pytest.mark.parametrize(
    "sections",
    [
        {"tts": {"pool": {"actors": 7}}},
        {"serve": {"pool": {"num_cpus": 4}, "batch_utterances": 3}},
        {"train": {"workers_per_domain": 2, "pool": {"num_gpus": 1}}},
        {"llm": {"num_gpus": 8, "batch_rows": 2, "engine_kwargs": {"tensor_parallel_size": 8}}},
        {"decode": {"lookahead": 4}},
        {"name": "renamed"},
        {"rows_per_block": 7},
    ],
)
def test_how_fast_it_runs_does_not_change_what_it_makes(tree, sections):
    assert changed(tree, **sections) == set()


def test_an_edited_file_of_own_texts_or_manifest_is_seen(tree):
    before = folders(tree)
    Path(tree["domains"][1]["texts"]).write_text("another text\n")
    Path(tree["evaluation"]["test_sets"][0]["manifest"]).write_text('{"audio": "b.wav"}\n')
    after = folders(tree)
    assert before["texts/own"] != after["texts/own"]
    assert before["corpus/human"] != after["corpus/human"]
    assert before["texts/music"] == after["texts/music"]


def test_the_demo_plan_has_every_system_on_every_set(monkeypatch):
    monkeypatch.chdir(ROOT)
    plan = build_plan(load_config("configs/demo.yaml"))
    assert plan.systems == ["base", "lora:music", "lora:weather", "lora:sports", "das"]
    assert len(plan.transcripts) == len(plan.systems) * len(plan.corpora)
