"""One run on the real models, two domains of a dozen utterances, checked against stock PEFT."""

import json

import pytest
import yaml
from job_project import ROOT, Project

from das_lib.models import load_whisper
from das_lib.speech.audio import read_audio

pytestmark = [pytest.mark.ray, pytest.mark.slow]
DOMAINS = ("music", "weather")
CHECKED = 4  # recordings


def small_demo(folder):
    """The demo's configuration with one seed a domain and a dozen utterances."""
    tree = yaml.safe_load((ROOT / "configs" / "demo.yaml").read_text())
    tree["domains"] = [d for d in tree["domains"] if d["name"] in DOMAINS]
    for domain in tree["domains"]:
        domain |= {"utterances": 12, "held_out": 2, "seeds": domain["seeds"][:1]}
    tree |= {"output": str(folder / "out"), "rows_per_block": 4}
    tree["text"] |= {"instructions_per_seed": 4}
    tree["train"] |= {"epochs": 1, "batch_size": 4, "learning_rate": 1e-4}
    tree["evaluation"]["test_sets"] = tree["evaluation"]["test_sets"][:1]
    (folder / "config.yaml").write_text(yaml.safe_dump(tree))
    return Project(folder / "config.yaml", folder / "out")


@pytest.mark.timeout(1500)
def test_the_pipeline_runs_on_real_models_and_its_adapters_are_stock_peft(tmp_path):
    project = small_demo(tmp_path)
    done = project.das("run", "--json", str(tmp_path / "out.json"), timeout=1400)
    assert "librivox" in done.stdout

    value = json.loads((tmp_path / "out.json").read_text())
    systems = ["base", *(f"lora:{domain}" for domain in DOMAINS), "das"]
    assert {r["system"] for r in value["results"]} == set(systems)
    human = {r["system"]: r["wer"] for r in value["results"] if r["test_set"] == "librivox"}
    assert all(wer < 0.1 for wer in human.values()), human
    stages = {stage["name"]: stage for stage in value["stages"]}
    assert list(stages) == [
        "instructions",
        "replies",
        "texts",
        "speech",
        "features",
        "adapters",
        "corpus",
        "transcripts",
        "report",
    ]
    assert all(s["in"] == s["out"] + s["rejected"] for s in stages.values())
    for domain in DOMAINS:
        texts = [row["text"] for row in project.rows("texts", domain, "text")]
        assert len(texts) > 4
        assert len({text.lower() for text in texts}) == len(texts)
        assert all(" " in text for text in texts)

    _check_against_stock_peft(project)


def _check_against_stock_peft(project):
    import torch
    from peft import PeftModel

    for domain in (None, *DOMAINS):
        model, processor = load_whisper("openai/whisper-base")
        if domain:
            adapter = project.step("adapters", domain) / "adapter"
            model = PeftModel.from_pretrained(model, adapter).eval()
            assert sum(p.numel() for n, p in model.named_parameters() if "lora_" in n) > 0
        system = f"lora_{domain}" if domain else "base"
        clips = {r["id"]: r["path"] for r in project.rows("corpus", "librivox", "path")}
        rows = project.rows("transcripts", f"{system}-librivox", "text")
        assert len(rows) == len(clips)
        for row in rows[:CHECKED]:
            mel = processor(
                read_audio(clips[row["id"]]), sampling_rate=16000, return_tensors="pt"
            ).input_features
            with torch.inference_mode():
                tokens = model.generate(
                    input_features=mel, language="en", task="transcribe", do_sample=False
                )
            text = processor.batch_decode(tokens, skip_special_tokens=True)[0].strip()
            assert row["text"] == text, (system, row["id"])
