"""Transcripts of a block as files beside the dataset."""

import json

import pyarrow as pa
import pytest

from das_lib.bulk.export import Export
from das_lib.bulk.formats import FORMATS, render
from das_lib.bulk.hear import Heard
from das_lib.bulk.rows import to_row
from das_lib.bulk.transcript import Segment, Transcript, Word
from das_lib.errors import DasError
from das_lib.storage import Folder
from schemas.bulk import BULK_TRANSCRIPTS, EXPORTS
from schemas.validate import validate

ODD = "calls/a b\nс.wav"
IDS = ("a.wav", "calls/a.wav", ODD, "../escape.wav")


def transcript(id, text="one two", *, times=True):
    spans = [(0.25, 0.5), (0.5, 1.25)] if times else [(None, None)] * 2
    words = tuple(
        Word(text=word, adapter="base", confidence=0.5, start_s=start, end_s=end)
        for word, (start, end) in zip(text.split(), spans, strict=True)
    )
    segment = Segment(
        start_s=0.25, end_s=1.25, text=text, avg_logprob=-0.5, compression_ratio=0.75, words=words
    )
    return Transcript(id=id, language="en", duration_s=2.0, speech_s=1.5, segments=(segment,))


def table(transcripts):
    rows = [
        to_row(Heard(transcript=t), model="tiny", adapters=[], seconds=1.0) for t in transcripts
    ]
    return pa.Table.from_pylist(rows, schema=BULK_TRANSCRIPTS)


def export(root, transcripts, formats):
    """Content of the files by format and id, as the index says where they are."""
    folders = {name: root / name for name in formats}
    made = Export(folders)(table(transcripts), list(formats))
    assert made.keys() == set(formats)
    for outcome in made.values():
        validate(outcome.rows, EXPORTS)
        assert outcome.rejects == []
    return {
        name: {
            row["id"]: folders[name].read(row["file"]).decode() for row in outcome.rows.to_pylist()
        }
        for name, outcome in made.items()
    }


def files(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file())


TRANSCRIPTS = [transcript(id, f"said {i}") for i, id in enumerate(IDS)]


def test_a_recording_has_a_file_of_its_own_in_the_forms_of_people(tmp_path):
    made = export(Folder(tmp_path), TRANSCRIPTS, ["txt", "srt", "vtt", "json"])
    for format, by_id in made.items():
        assert by_id == {t.id: render(t, format) for t in TRANSCRIPTS}
        assert len(files(tmp_path / format)) == len(IDS)
    assert made["txt"][ODD] == "said 2\n"
    assert "calls/a.wav.srt" in files(tmp_path / "srt")
    assert not list(tmp_path.parent.glob("escape*")), "it left its folder"


def test_recordings_of_a_block_share_a_file_in_the_forms_of_machines(tmp_path):
    made = export(Folder(tmp_path), TRANSCRIPTS, ["jsonl", "ctm", "stm"])
    for format, by_id in made.items():
        (name,) = files(tmp_path / format)
        assert name.endswith(f".{format}")
        whole = "".join(render(t, format) for t in TRANSCRIPTS)
        assert by_id == dict.fromkeys(IDS, whole)
    lines = made["jsonl"][ODD].splitlines()
    assert [json.loads(line)["id"] for line in lines] == list(IDS)


def test_only_the_formats_that_a_block_lacks_are_written(tmp_path):
    folders = {name: Folder(tmp_path / name) for name in FORMATS}
    made = Export(folders)(table(TRANSCRIPTS), ["txt"])
    assert list(made) == ["txt"]
    assert [path.name for path in tmp_path.iterdir()] == ["txt"]


def test_blocks_do_not_share_files_and_a_block_that_is_written_again_replaces_its_own(tmp_path):
    formats = ("txt", "jsonl")
    for _ in range(2):
        export(Folder(tmp_path), TRANSCRIPTS[:2], formats)
        export(Folder(tmp_path), TRANSCRIPTS[2:], formats)
        assert [len(files(tmp_path / name)) for name in formats] == [4, 2]


def test_halves_of_characters_and_control_characters_are_written(tmp_path):
    made = export(
        Folder(tmp_path), [transcript("a.wav", "caf\ufffd \x1d|")], ["txt", "jsonl", "stm"]
    )
    assert made["txt"]["a.wav"] == "caf\ufffd |\n"
    assert json.loads(made["jsonl"]["a.wav"])["text"] == "caf\ufffd \x1d|"


def test_ctm_of_words_without_times_is_refused(tmp_path):
    with pytest.raises(DasError, match="transcribe with --word-times"):
        export(Folder(tmp_path), [transcript("a.wav", times=False)], ["ctm"])


@pytest.mark.slow
def test_files_go_to_s3(bucket):
    made = export(Folder("s3://das/out"), TRANSCRIPTS, ["srt", "jsonl"])
    assert made["srt"] == {t.id: render(t, "srt") for t in TRANSCRIPTS}
    keys = [o["Key"] for o in bucket.list_objects_v2(Bucket="das")["Contents"]]
    assert len(keys) == len(IDS) + 1
    assert all(key.startswith(("out/srt/", "out/jsonl/")) for key in keys)
