import json

import pyarrow as pa
import pytest

from das_lib.corpus import manifest_fingerprint, read_manifest, speech_corpus
from das_lib.errors import DasError
from schemas.speech import SPEECH


def write(path, *lines):
    path.write_text("\n".join(x if isinstance(x, str) else json.dumps(x) for x in lines) + "\n")
    return path


def test_bad_lines_are_rejected_with_a_reason_and_counted(tmp_path):
    manifest = write(
        tmp_path / "m.jsonl",
        {"id": "a", "audio": "audio/a.flac", "text": "hello"},
        {"audio": "/abs/b.flac"},
        {"id": "a", "audio": "c.flac"},
        {"text": "no recording"},
        "not json",
        "[1]",
    )
    outcome, count = read_manifest(manifest, "human")
    assert count == 6
    assert outcome.rows.num_rows + len(outcome.rejects) == count
    reasons = [r.reason for r in outcome.rejects]
    assert reasons == ["duplicate-id", "no-audio", "no-json", "no-json"]
    first, second = outcome.rows.to_pylist()
    assert (first["id"], first["path"]) == ("a", str(tmp_path / "audio" / "a.flac"))
    assert (second["path"], second["text"]) == ("/abs/b.flac", None)
    assert len(second["id"]) == 16, "an id of its own"


def test_a_set_may_be_one_domain_of_a_manifest(tmp_path):
    lines = [{"audio": f"{i}.flac", "domain": d} for i, d in enumerate("aba")]
    manifest = write(tmp_path / "m.jsonl", *lines, "not json")
    outcome, count = read_manifest(manifest, "human_a", "a")
    assert (outcome.rows.num_rows, len(outcome.rejects), count) == (2, 1, 3)
    with pytest.raises(DasError, match="has no line of domain 'c'"):
        read_manifest(write(tmp_path / "n.jsonl", *lines), "human_c", "c")


def test_a_set_may_be_a_fair_sample_of_a_manifest(tmp_path):
    lines = [{"audio": f"{i}.flac", "domain": "ab"[i % 2]} for i in range(40)]
    manifest = write(tmp_path / "m.jsonl", *lines)

    def paths(limit, *given):
        outcome, count = read_manifest(given[0] if given else manifest, "human", "a", limit)
        assert count == outcome.rows.num_rows
        return [path.rsplit("/", 1)[1] for path in outcome.rows["path"].to_pylist()]

    every, some = paths(None), paths(7)
    assert len(some) == 7
    assert some == [path for path in every if path in some], "in the manifest's order"
    assert some != every[:7]
    assert set(some) < set(paths(8))
    assert paths(99) == every
    # Which are taken hangs on the lines, not on their places.
    assert set(paths(7, write(tmp_path / "turned.jsonl", *reversed(lines)))) == set(some)


def test_a_missing_or_empty_manifest_is_an_error(tmp_path):
    with pytest.raises(DasError, match="cannot be read"):
        manifest_fingerprint(tmp_path / "none.jsonl")
    with pytest.raises(DasError, match="is empty"):
        read_manifest(write(tmp_path / "m.jsonl", ""), "human")


def test_a_replaced_recording_changes_the_fingerprint(tmp_path):
    manifest = write(tmp_path / "m.jsonl", {"audio": "a.wav"})
    before = manifest_fingerprint(manifest)
    (tmp_path / "a.wav").write_bytes(b"12345")
    assert manifest_fingerprint(manifest) != before


def test_only_what_was_held_out_is_tested():
    row = {"domain": "d", "text": "t", "audio": b"x", "sample_rate_hz": 16000, "num_samples": 5}
    row |= {"engine": "e", "voice": "v"}
    speech = pa.Table.from_pylist(
        [{**row, "id": "1", "split": "train"}, {**row, "id": "2", "split": "test"}], schema=SPEECH
    )
    assert speech_corpus(speech, "synthetic_d").column("id").to_pylist() == ["2"]
    assert speech_corpus(speech, "synthetic_unrelated", None)["id"].to_pylist() == ["1", "2"]
