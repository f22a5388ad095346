import json
from pathlib import Path
from typing import Any

import pytest
import soundfile

EVAL = Path(__file__).parents[1] / "data" / "eval"
SETS = {"librivox": 16000, "telephone": 8000}
KEYS = {
    "id",
    "audio",
    "text",
    "domain",
    "duration_s",
    "sample_rate_hz",
    "source",
    "licence",
}


def lines(name: str) -> list[dict[str, Any]]:
    text = (EVAL / name / "manifest.jsonl").read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


@pytest.mark.parametrize("name", SETS)
def test_every_clip_decodes_with_the_rate_and_duration_that_its_line_states(name):
    for line in lines(name):
        assert line.keys() == KEYS, line["id"]
        samples, rate_hz = soundfile.read(EVAL / name / line["audio"], dtype="int16")
        assert samples.ndim == 1, line["id"]
        assert rate_hz == line["sample_rate_hz"] == SETS[name], line["id"]
        assert len(samples) / rate_hz == pytest.approx(line["duration_s"], abs=1e-6), line["id"]
        assert abs(samples).max() > 1000, f"{line['id']} is nearly silent"
        assert line["duration_s"] < 30, f"{line['id']} exceeds Whisper's window"


@pytest.mark.parametrize("name", SETS)
def test_every_clip_has_a_text_a_source_and_a_licence(name):
    for line in lines(name):
        assert len(line["text"].split()) >= 3, line["id"]
        assert line["text"] == " ".join(line["text"].split()), line["id"]
        assert line["source"], line["id"]
        assert line["licence"] in {"Public domain", "CC-BY-SA-3.0"}, line["id"]


def test_ids_are_unique_and_no_audio_file_lacks_a_line():
    ids = [line["id"] for name in SETS for line in lines(name)]
    assert len(ids) == len(set(ids))
    for name in SETS:
        listed = {EVAL / name / line["audio"] for line in lines(name)}
        assert listed == set((EVAL / name / "audio").iterdir())


def test_every_set_says_whose_work_it_is():
    assert {path.name for path in EVAL.iterdir() if path.is_dir()} == set(SETS)
    for name in SETS:
        attribution = (EVAL / name / "ATTRIBUTION.md").read_text(encoding="utf-8")
        for word in ("Source:", "Licence:", "Changes:", "FLAC"):
            assert word in attribution
    assert "Allison Smith" in (EVAL / "telephone" / "ATTRIBUTION.md").read_text(encoding="utf-8")


def test_the_sets_stay_under_five_megabytes():
    size = sum(path.stat().st_size for path in EVAL.rglob("*") if path.is_file())
    assert size < 5_000_000
