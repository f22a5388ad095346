"""A corpus through `das transcribe INPUT OUTPUT`, on a tiny random Whisper."""

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import soundfile
import soxr
from job_project import ROOT, make_project

from das_lib.adml import Fixed, Transcriber
from das_lib.bulk.file_names import file_name
from das_lib.speech.audio import SAMPLE_RATE, read_audio
from ray_jobs.cli import main

pytestmark = [pytest.mark.ray, pytest.mark.timeout(1500)]

CLIPS = sorted((ROOT / "data" / "eval" / "librivox" / "audio").glob("*.flac"))
ODD = "talks/a blank\na line, café.flac"
SHORT = ("a.flac", "talks/b.flac", ODD)
GOOD = (*SHORT, "long.flac", "stereo.wav")
BAD = {"empty.flac": "empty-audio", "talks/text.flac": "not-audio", "cut.flac": "truncated"}
FORMATS = "txt,jsonl,srt,stm"


def make_corpus(folder):
    """Good and bad recordings, and a file that is none."""
    (folder / "talks").mkdir(parents=True)
    for name, clip in zip(SHORT, CLIPS, strict=False):
        (folder / name).write_bytes(clip.read_bytes())
    speech = read_audio(CLIPS[2])
    left = soxr.resample(speech, SAMPLE_RATE, 44_100)
    soundfile.write(folder / "stereo.wav", np.stack([left, 0 * left], axis=1), 44_100)
    pause = np.zeros(5 * SAMPLE_RATE, np.float32)
    parts = [part for clip in (*CLIPS, *CLIPS) for part in (read_audio(clip), pause)]
    soundfile.write(folder / "long.flac", np.concatenate(parts)[: 40 * SAMPLE_RATE], SAMPLE_RATE)
    content = CLIPS[0].read_bytes()
    (folder / "cut.flac").write_bytes(content[: len(content) // 2])
    (folder / "talks" / "text.flac").write_text("this is no recording")
    (folder / "empty.flac").write_bytes(b"")
    (folder / "notes.txt").write_text("not listed")


@pytest.fixture(scope="module")
def project(tiny, tmp_path_factory):
    return make_project(
        tiny,
        tmp_path_factory.mktemp("bulk"),
        domains=("music",),
        transcribe={"recordings_per_block": 3},
    )


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    make_corpus(folder)
    return folder


@pytest.fixture(scope="module")
def finished(project, corpus):
    """The output of a first run, and what that run printed."""
    output = project.output.parent / "transcripts of the corpus"
    options = ("--adapters", "none", "--format", FORMATS)
    return output, project.das("transcribe", str(corpus), str(output), *options, timeout=1200)


def rows(output, kind="transcripts", part="data"):
    files = sorted((output / kind / part).glob("*.parquet"))
    return {row["id"]: row for path in files for row in pq.read_table(path).to_pylist()}


def exported(output, format):
    """The text of each recording's export, by id."""
    index = rows(output, f"exports/{format}")
    return {id: (output / format / row["file"]).read_text() for id, row in index.items()}


def times(folder):
    return {str(path): path.stat().st_mtime_ns for path in folder.rglob("*.parquet")}


def test_each_recording_is_transcribed_or_rejected_once(finished):
    output, done = finished
    assert rows(output).keys() == set(GOOD)
    rejects = rows(output, part="rejects")
    assert {id: row["reason"] for id, row in rejects.items()} == BAD
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["in"], summary["out"], summary["rejected"]) == (8, 5, 3)
    assert summary["reasons"] == {reason: 1 for reason in sorted(BAD.values())}
    assert summary["this_run"]["recordings"] == 8
    assert "recordings   8 new, 1 other files skipped" in done.stderr
    assert "transcripts  5 of 8 recordings" in done.stderr
    assert "3 rejected (1 empty-audio, 1 not-audio, 1 truncated)" in done.stderr
    assert str(output / "summary.json") in done.stderr
    assert done.stdout == "", "standard output is for results"
    assert not list(output.rglob("*.tmp"))


def test_short_recordings_are_heard_as_the_model_hears_them(finished, corpus, tiny):
    output, _ = finished
    transcripts = rows(output)
    model = Transcriber.from_pretrained(tiny, language="en")
    heard = model.transcribe([read_audio(corpus / name) for name in SHORT], {"base": Fixed(0)})
    for name, wanted in zip(SHORT, heard, strict=True):
        row = transcripts[name]
        assert row["text"] == wanted["base"].text
        (segment,) = row["segments"]
        assert segment["avg_logprob"] == pytest.approx(wanted["base"].avg_logprob, rel=1e-4)
        assert segment["no_speech_prob"] == pytest.approx(wanted["base"].no_speech_prob, rel=1e-3)
        assert [word["text"] for word in segment["words"]] == [w.text for w in wanted["base"].words]
        assert {word["adapter"] for word in segment["words"]} == {"base"}
        assert (row["windows"], row["model"], row["adapters"]) == (1, str(tiny), [])
        assert row["duration_s"] == pytest.approx(soundfile.info(corpus / name).duration)


def test_long_and_stereo_recordings_are_heard_whole(finished, corpus):
    output, _ = finished
    transcripts = rows(output)
    long = transcripts["long.flac"]
    assert long["duration_s"] == pytest.approx(40)
    assert 15 < long["speech_s"] < 35, "pauses of 5 s are not decoded"
    assert long["windows"] >= 1
    last = 0.0
    for segment in long["segments"]:
        assert last <= segment["start_s"] <= segment["end_s"] <= 40
        last = segment["end_s"]
    stereo = transcripts["stereo.wav"]
    assert stereo["duration_s"] == pytest.approx(soundfile.info(CLIPS[2]).duration, abs=0.01)
    assert stereo["text"]


def test_forms_beside_the_dataset_hold_the_same(finished):
    output, _ = finished
    transcripts = rows(output)
    for format in FORMATS.split(","):
        assert exported(output, format).keys() == set(GOOD)
    assert (output / "txt" / file_name(ODD, "txt")).is_file()
    lines = [
        json.loads(line)
        for path in (output / "jsonl").glob("*.jsonl")
        for line in path.read_text().split("\n")
        if line
    ]
    assert {line["id"]: line["text"] for line in lines} == {
        id: row["text"] for id, row in transcripts.items()
    }
    for id, text in exported(output, "srt").items():
        assert text.count(" --> ") == len(transcripts[id]["segments"])


def test_the_same_again_does_nothing_and_starts_no_ray(
    finished, project, corpus, capsys, monkeypatch
):
    output, _ = finished
    before = times(output)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")  # no cluster: Ray cannot start
    command = ["transcribe", f"{corpus}/", str(output), "-c", str(project.config)]
    command += ["--adapters", "none", "--format", FORMATS]
    assert main(command) == 0
    assert "recordings   0 new" in capsys.readouterr().err
    assert times(output) == before
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["in"], summary["out"]) == (8, 5)
    assert summary["this_run"]["recordings"] == 0

    assert main([*command, "--max-rejected", "3"]) == 0
    assert main([*command, "--max-rejected", "38%"]) == 0
    capsys.readouterr()
    assert main([*command, "--max-rejected", "0"]) == 1
    assert "more than --max-rejected 0 were rejected" in capsys.readouterr().err
    assert main([*command, "--max-rejected", "37%"]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "decode.beams=2"], "another decode.beams: 1, now 2; give another OUTPUT"),
        (
            ["--set", "transcribe.speech_threshold=0.4"],
            "another transcribe.speech_threshold: 0.5, now 0.4",
        ),
        (["--word-times"], "another transcribe.word_times: False, now True"),
        (["--format", "ctm"], "--format ctm needs the times of words; add --word-times"),
        (["--format", "txt,doc"], "'doc' is unknown; give some of txt, jsonl"),
        (["--adapters", "food"], "'food' is none of the domains music; name some of them"),
        (["--adapters", "music"], "adapters/music is not finished"),
        (["--max-rejected", "many"], "'many' is no number of at least 0; give 100 or 0.5%"),
    ],
)
def test_what_cannot_be_done_says_why(
    finished, project, corpus, capsys, monkeypatch, options, message
):
    output, _ = finished
    before = times(output)
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    command = ["transcribe", str(corpus), str(output), "-c", str(project.config)]
    assert main([*command, "--adapters", "none", *options]) == 2
    printed = capsys.readouterr().err
    assert message in printed
    assert "Traceback" not in printed
    assert times(output) == before


def test_an_input_that_cannot_be_listed_is_told_and_the_output_does_not_remember_it(
    project, tmp_path, capsys
):
    command = ["transcribe", "-c", str(project.config), "--adapters", "none"]
    assert main([*command, str(tmp_path)]) == 2
    assert "needs an OUTPUT" in capsys.readouterr().err
    output = tmp_path / "out"
    (tmp_path / "in").mkdir()
    for source, message in (
        (tmp_path / "nowhere", "nowhere"),
        ("", "source is empty"),
        (tmp_path / "in", "no audio below"),
    ):
        assert main([*command, str(source), str(output)]) == 2
        assert message in capsys.readouterr().err
        assert list(output.rglob("*")) == []


def test_a_corpus_that_grew_has_its_new_recordings_transcribed(finished, project, corpus):
    output, _ = finished
    before = times(output)
    for name in ("new.flac", "talks/new.flac"):
        Path(corpus / name).write_bytes(CLIPS[1].read_bytes())
    done = project.das(
        *("transcribe", str(corpus), str(output), "--adapters", "none"),
        *("--format", f"{FORMATS},vtt"),
        timeout=1200,
    )
    assert "recordings   2 new" in done.stderr
    after = times(output)
    assert {path: after[path] for path in before} == before
    new = {Path(path).relative_to(output).as_posix() for path in after.keys() - before.keys()}
    block = "data/0001-000000.parquet"
    assert {path for path in new if not path.startswith("exports/vtt/")} == {
        f"recordings/{block}",
        f"transcripts/{block}",
        *(f"exports/{name}/{block}" for name in FORMATS.split(",")),
    }
    transcripts = rows(output)
    assert transcripts.keys() == {*GOOD, "new.flac", "talks/new.flac"}
    assert transcripts["new.flac"]["text"] == transcripts["talks/b.flac"]["text"]
    assert exported(output, "vtt").keys() == transcripts.keys(), "of the old ones too"
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["in"], summary["out"], summary["rejected"]) == (10, 7, 3)
    assert summary["this_run"]["recordings"] == 2


def test_what_was_rejected_for_a_reason_is_tried_again_on_demand(finished, project, corpus):
    output, _ = finished
    before = rows(output)
    name = "talks/text.flac"
    (corpus / name).write_bytes(CLIPS[1].read_bytes())
    done = project.das(
        *("transcribe", str(corpus), str(output), "--adapters", "none", "--format", "jsonl,srt"),
        *("--retry", "not-audio,storage"),
        timeout=1200,
    )
    assert "recordings   1 to try again" in done.stderr
    after = rows(output)
    assert after.keys() == {*before, name}
    assert {id: after[id] for id in before} == before, "the block's others were not decoded again"
    rejects = rows(output, part="rejects")
    assert {id: row["reason"] for id, row in rejects.items()} == {
        id: reason for id, reason in BAD.items() if id != name
    }
    lines = [line for path in (output / "jsonl").iterdir() for line in path.open()]
    assert sorted(json.loads(line)["id"] for line in lines) == sorted(after)
    assert exported(output, "srt").keys() == after.keys()
    listed = (pq.read_table(path)["id"].to_pylist() for path in output.glob("recordings/data/*"))
    [block] = [ids for ids in listed if name in ids]
    assert exported(output, "txt").keys() == before.keys() - {*block}, "made when asked for again"
    summary = json.loads((output / "summary.json").read_text())
    assert (summary["in"], summary["out"], summary["rejected"]) == (10, 8, 2)
