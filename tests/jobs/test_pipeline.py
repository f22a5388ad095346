"""The whole pipeline through the command line, on fakes."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import load_dataset
from job_project import make_project

from ray_jobs.cli import main

pytestmark = pytest.mark.ray


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    """A project whose first run has ended, and what that run printed."""
    project = make_project(tiny, tmp_path_factory.mktemp("finished"))
    return project, project.das("run", "--json", str(project.output.parent / "out.json"))


def test_adapters_alone_give_the_transcripts_that_stock_peft_gives(finished):
    import torch
    from peft import PeftModel
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    from das_lib.speech.audio import read_audio

    project, _ = finished
    folder = project.config.parent
    base = json.loads((project.step("features", "music") / "config.json").read_text())
    model_folder = base["params"]["asr"]["model"]
    processor = WhisperProcessor.from_pretrained(model_folder)
    transcripts = {}
    for system in ("base", "lora_music", "lora_sports"):
        model = WhisperForConditionalGeneration.from_pretrained(model_folder)
        if system != "base":
            adapter = project.step("adapters", system.removeprefix("lora_")) / "adapter"
            model = PeftModel.from_pretrained(model, adapter)
        model.eval()
        rows = project.rows("transcripts", f"{system}-synthetic_music", "text", "tokens")
        clips = {r["id"]: r["audio"] for r in project.rows("speech", "music", "audio")}
        for row in rows:
            audio = read_audio(clips[row["id"]])
            mel = processor(audio, sampling_rate=16000, return_tensors="pt").input_features
            with torch.inference_mode():
                tokens = model.generate(
                    input_features=mel, language="en", task="transcribe", do_sample=False
                )
            text = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
            assert row["text"] == text, (system, row["id"])
        transcripts[system] = [row["tokens"] for row in rows]
    assert transcripts["base"] != transcripts["lora_music"], f"adapters change nothing in {folder}"


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
    assert table[0].split() == [
        "test",
        "set",
        "utterances",
        "base",
        "lora:music",
        "lora:sports",
        "das",
    ]
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

    project.das("run", "--set", "tts.pool.num_cpus=0.5", "--set", "adml.tau=0.9")
    new = sorted(path.rsplit("-", 1)[0] for path in set(project.hashes()) - set(before))
    assert new == [
        "report/wer",
        "transcripts/das-human",
        "transcripts/das-synthetic_music",
        "transcripts/das-synthetic_sports",
    ]


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
