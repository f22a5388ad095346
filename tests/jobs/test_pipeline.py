"""The whole pipeline through the command line, on fakes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from datasets import load_dataset
from job_project import Project, make_project

from ray_jobs.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A project whose first run has ended, and what that run printed."""
    project = make_project(tiny, tmp_path_factory.mktemp("finished"))
    return project, project.das("run", "--json", str(project.output.parent / "out.json"))


def stock_texts(project: Project, model: Any, folder: Path, corpus: str) -> dict[str, str]:
    """What transformers transcribes of a domain's held-out speech, by id."""
    import torch
    from transformers import WhisperProcessor

    from das_lib.speech.audio import read_audio

    processor = WhisperProcessor.from_pretrained(folder)
    model.eval()
    texts = {}
    for row in project.rows("corpus", corpus, "audio"):
        audio = read_audio(row["audio"])
        mel = processor(audio, sampling_rate=16000, return_tensors="pt").input_features
        with torch.inference_mode():
            tokens = model.generate(
                input_features=mel, language="en", task="transcribe", do_sample=False
            )
        texts[row["id"]] = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
    return texts


def our_texts(project: Project, system: str, corpus: str) -> dict[str, str]:
    rows = project.rows("transcripts", f"{system}-{corpus}", "text")
    return {row["id"]: row["text"] for row in rows}


def base_folder(project: Project) -> Path:
    config = json.loads((project.step("features", "music") / "config.json").read_text())
    return Path(config["params"]["asr"]["model"])


def test_adapters_alone_give_the_transcripts_that_stock_peft_gives(finished):
    from peft import PeftModel
    from transformers import WhisperForConditionalGeneration

    project, _ = finished
    folder = base_folder(project)
    texts = {}
    for system in ("base", "lora_music", "lora_sports"):
        model = WhisperForConditionalGeneration.from_pretrained(folder)
        if system != "base":
            adapter = project.step("adapters", system.removeprefix("lora_")) / "adapter"
            model = PeftModel.from_pretrained(model, adapter)
        texts[system] = our_texts(project, system, "synthetic_music")
        assert texts[system] == stock_texts(project, model, folder, "synthetic_music"), system
    assert texts["base"] != texts["lora_music"], "adapters change nothing"


def test_baselines_are_trained_and_measured_beside_the_adapters(finished):
    from transformers import WhisperForConditionalGeneration

    project, first = finished
    there = project.hashes()
    # The one hears with the base's encoder and decodes beside it, the other is a model of its own.
    systems = ("ft-decoder", "ft-encoder-decoder")
    methods = ",".join(f"{system}-multi" for system in systems)
    rate = ("--set", "baselines.learning_rate=1e-3")
    trained = project.das("train", "--methods", methods, *rate)
    assert "spectrograms 18 utterances will take 0.00 GiB" in trained.stderr
    new = sorted(path.rsplit("-", 1)[0] for path in set(project.hashes()) - set(there))
    assert new == [
        *(f"baselines/{system}_multi" for system in systems),
        "spectrograms/music",
        "spectrograms/sports",
    ]
    table = project.das("evaluate", "--systems", methods, *rate).stdout.splitlines()
    cells = [line.split() for line in table]
    before = [line.split() for line in first.stdout.splitlines()]
    assert cells[:6] == before[:6], "the other systems are what they were"
    assert [row[0] for row in cells[6:8]] == [f"{system}:multi" for system in systems]
    for system in systems:
        model = project.step("baselines", f"{system}_multi") / "model"
        stock = WhisperForConditionalGeneration.from_pretrained(model)
        ours = our_texts(project, f"{system}_multi", "synthetic_music")
        assert ours == stock_texts(project, stock, model, "synthetic_music"), system
        assert ours != our_texts(project, "base", "synthetic_music"), system
    report = project.das("evaluate", "--systems", methods, *rate).stdout
    assert report == "\n".join(table) + "\n"


def test_the_adapters_of_a_run_are_listed_with_their_losses(finished, capsys):
    project, _ = finished
    main(["adapters", "list", "-c", str(project.config)])
    head, *rows = (line.split() for line in capsys.readouterr().out.splitlines())
    assert head[:2] == ["domain", "state"]
    assert [row[:2] for row in rows] == [["music", "trained"], ["sports", "trained"]]
    for row in rows:
        assert float(row[head.index("loss")]) > 0
        assert (Path(row[-1]) / "adapter_model.safetensors").is_file()


def test_each_token_names_the_branch_and_the_rule_that_chose_it(finished):
    project, _ = finished
    rows = project.rows("transcripts", "das-synthetic_music", "tokens", "branches", "rules")
    assert rows
    for row in rows:
        assert len(row["tokens"]) == len(row["branches"]) == len(row["rules"])
        assert set(row["branches"]) <= {"base", "music", "sports"}
        assert set(row["rules"]) <= {"base", "max", "min"}
    assert len(np.unique([b for row in rows for b in row["branches"]])) > 1


def test_a_run_ends_in_a_table_resumes_and_recomputes_only_what_depends_on_a_change(
    finished, tmp_path
):
    project, first = finished
    table = first.stdout.strip().splitlines()
    assert table[0].split() == ["system", "human", "synthetic_music", "synthetic_sports"]
    assert [row.split()[0] for row in table[2:6]] == ["base", "lora:music", "lora:sports", "das"]
    assert table[-1].startswith("report: ")
    assert table[-1].endswith("report.md")

    value = json.loads((project.output.parent / "out.json").read_text())
    assert {r["system"] for r in value["results"]} == {"base", "lora:music", "lora:sports", "das"}
    assert {r["test_set"] for r in value["results"]} == {
        "human",
        "synthetic_music",
        "synthetic_sports",
    }
    for row in value["results"]:
        assert row["wer"] == pytest.approx(row["edits"] / row["words"])
    stages = {stage["name"]: stage for stage in value["stages"]}
    for stage in stages.values():
        assert stage["in"] == stage["out"] + stage["rejected"]
        assert stage["seconds"] >= 0
    assert stages["texts"]["rejected"] == 4, "two texts without words, two duplicates"
    assert stages["corpus"]["reasons"] == {"no-audio": 1}
    # Three bad recordings, for each of four systems.
    assert stages["transcripts"]["reasons"] == {"missing-audio": 4, "not-audio": 8}

    for folder in project.output.glob("*/*/data"):
        files = [str(path) for path in folder.glob("*.parquet")]
        opened = load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "hf"))
        assert opened["train"].num_rows > 0, folder

    before = project.hashes()
    project.environment = {"RAY_ADDRESS": "127.0.0.1:1"}  # no cluster: Ray cannot start
    again = project.das("run")
    project.environment = {}
    assert again.stdout == first.stdout
    assert project.hashes() == before, "nothing was made anew"
    assert "done" not in again.stderr

    margins = ["--set", "calibration.taus=[0.1, 0.9]", "--set", "calibration.utterances=3"]
    changed = project.das(
        "run", "--set", "tts.pool.num_cpus=0.5", "--set", "adml.tau=auto", *margins
    )
    sets = ("human", "synthetic_music", "synthetic_sports", "synthetic_unrelated")
    new = sorted(path.rsplit("-", 1)[0] for path in set(project.hashes()) - set(before))
    assert new == sorted(
        [
            "calibration/tau",
            "corpus/synthetic_unrelated",
            "report/wer",
            "speech/unrelated",
            "texts/unrelated",
            *(f"transcripts/das-{name}" for name in sets),
            *(f"transcripts/das@{tau}-{name}" for tau in (0.1, 0.9) for name in sets[1:]),
            *(f"transcripts/{s}-{sets[3]}" for s in ("base", "lora_music", "lora_sports")),
        ]
    )
    choice = json.loads((project.step("calibration", "tau") / "choice.json").read_text())
    assert choice["tau"] in (0.1, 0.9, 1.0)
    assert choice["in_domain"]["das"] <= choice["in_domain"]["base"]
    assert set(choice["adapters"]) == {"music", "sports"}
    chosen = f"adml.tau: {choice['tau']:g} "
    assert chosen in changed.stderr
    project.environment = {"RAY_ADDRESS": "127.0.0.1:1"}
    assert chosen in project.das("calibrate", *margins).stderr
    project.environment = {}


def test_a_stage_without_its_input_names_the_command_to_run(project):
    done = project.das("train", check=False)
    assert done.returncode == 2
    assert "speech/music is not finished" in done.stderr
    assert "das synthesize" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_plan_too_large_for_the_machine_ends_before_it_starts(project):
    done = project.das("run", "--set", "tts.pool.actors=64", check=False)
    assert done.returncode == 2
    assert "speech needs 64 CPUs at once" in done.stderr
    assert not list(project.output.glob("texts/*"))
