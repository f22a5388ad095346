"""What a bulk transcription did: everything that went in is accounted for."""

from collections import Counter
from itertools import chain

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.bulk.hear import Heard
from das_lib.bulk.recording import Recording
from das_lib.bulk.rows import to_row
from das_lib.bulk.summary import summarise
from das_lib.bulk.transcript import Segment, Transcript, Word
from das_lib.dataset import Dataset
from das_lib.errors import Reject, StorageError
from das_lib.rows import Outcome
from das_lib.storage import Folder
from schemas.bulk import BULK_TRANSCRIPTS, RECORDINGS


class Output:
    """The datasets of an output, a block at a time."""

    def __init__(self, folder):
        root = Folder(folder)
        self.recordings = Dataset(root / "recordings", RECORDINGS, "recordings", "corpus")
        self.transcripts = Dataset(root / "transcripts", BULK_TRANSCRIPTS, "transcripts", "corpus")

    def listed(self, block, *ids, rejects=()):
        rows = [Recording(id=id, url=f"{id}.wav").to_row() for id in ids]
        commit(self.recordings, block, rows, rejects)

    def heard(self, block, *heard, rejects=()):
        rows = [to_row(h, model="tiny", adapters=[], seconds=1.0) for h in heard]
        commit(self.transcripts, block, rows, rejects)

    def summary(self):
        return summarise(self.recordings, self.transcripts)


@pytest.fixture
def output(tmp_path):
    return Output(tmp_path / "out")


def commit(dataset, block, rows, rejects):
    rejects = [Reject(id, reason) for id, reason in rejects]
    dataset.commit(block, Outcome(pa.Table.from_pylist(rows, schema=dataset.schema), rejects))


def heard(id, *adapters, duration_s=10.0, speech_s=8.0, guards=(), windows=0, batches=0.0):
    """A transcript with a word of each adapter."""
    words = tuple(Word(text=name, adapter=name, confidence=0.5) for name in adapters)
    segment = Segment(
        start_s=0.0,
        end_s=speech_s,
        text=" ".join(adapters),
        avg_logprob=-0.1,
        compression_ratio=1.0,
        words=words,
    )
    transcript = Transcript(
        id=id,
        language="en",
        duration_s=duration_s,
        speech_s=speech_s,
        segments=(segment,) if adapters else (),
    )
    return Heard(transcript=transcript, counts=Counter(guards), windows=windows, batches=batches)


def test_a_summary_adds_up_all_blocks(output):
    output.listed("0000-000000", "a", "b", "c", rejects=[("m.jsonl:4", "no-audio")])
    output.listed("0001-000000", "d", "e", rejects=[("m.jsonl:9", "no-audio")])
    output.heard(
        "0000-000000",
        heard(
            "a", "food", "base", "food", guards=["hole", "unlikely", "hole"], windows=3, batches=1
        ),
        heard("b", duration_s=1800, speech_s=0),
        rejects=[("c", "truncated")],
    )
    output.heard(
        "0001-000000",
        heard("d", "food", duration_s=1790, speech_s=28, guards=["hole"], windows=3, batches=0.5),
        rejects=[("e", "not-audio")],
    )
    summary = output.summary()
    assert list(summary["share_of_words"].items()) == [("food", 0.75), ("base", 0.25)]
    assert summary == {
        "in": 7,
        "out": 3,
        "rejected": 4,
        "reasons": {"no-audio": 2, "not-audio": 1, "truncated": 1},
        "empty": 1,
        "audio_hours": 1,
        "speech_hours": 0.01,
        "windows": 6,
        "windows_per_batch": 4,
        "guards": {"hole": 3, "unlikely": 1},
        "words": 4,
        "share_of_words": {"food": 0.75, "base": 0.25},
    }


def test_a_corpus_of_rejects_has_a_summary(output):
    output.listed("0000-000000", "a", rejects=[("b", "not-a-file")])
    output.listed("0000-000001", rejects=[("c", "not-a-file")])
    output.heard("0000-000000", rejects=[("a", "truncated")])
    summary = output.summary()
    assert (summary["in"], summary["out"], summary["rejected"]) == (3, 0, 3)
    assert summary["reasons"] == {"not-a-file": 2, "truncated": 1}
    assert (summary["windows_per_batch"], summary["share_of_words"]) == (None, {})


def test_a_silent_corpus_has_a_summary(output):
    output.listed("0000-000000", "a", "b")
    output.heard("0000-000000", heard("a"), heard("b"))
    summary = output.summary()
    assert (summary["in"], summary["out"], summary["empty"]) == (2, 2, 2)
    assert (summary["words"], summary["share_of_words"], summary["guards"]) == (0, {}, {})


def test_recordings_without_a_transcript_are_told(output):
    output.listed("0000-000000", "a", "b")
    output.listed("0000-000001", "c")
    output.heard("0000-000000", heard("a"), rejects=[("b", "truncated")])
    with pytest.raises(StorageError, match=r"3 recordings .* 1 have .* 1 were rejected; run the"):
        output.summary()


def test_a_transcript_of_what_was_never_listed_is_told(output):
    output.listed("0000-000000", "a")
    output.heard("0000-000000", heard("a"), heard("b"))
    with pytest.raises(StorageError, match=r"1 recordings were listed, 2 have a transcript"):
        output.summary()


WORDS = st.lists(st.sampled_from(["base", "food", "law"]), max_size=5)
HEARD = st.tuples(WORDS, st.lists(st.sampled_from(["hole", "unlikely", "repetitive"]), max_size=3))


@settings(deadline=None, max_examples=25)
@given(blocks=st.lists(st.lists(HEARD, min_size=1, max_size=4), min_size=1, max_size=3))
def test_words_and_guards_are_counted_one_by_one(tmp_path_factory, blocks):
    output = Output(tmp_path_factory.mktemp("any"))
    for number, block in enumerate(blocks):
        ids = [f"{number}-{i}" for i in range(len(block))]
        output.listed(f"0000-{number:06d}", *ids)
        output.heard(
            f"0000-{number:06d}",
            *(heard(id, *words, guards=g) for id, (words, g) in zip(ids, block, strict=True)),
        )
    summary = output.summary()
    every = list(chain(*blocks))
    words = Counter(word for words, _ in every for word in words)
    assert summary["guards"] == Counter(guard for _, guards in every for guard in guards)
    assert summary["words"] == words.total()
    assert summary["empty"] == sum(not words for words, _ in every)
    assert {k: v * words.total() for k, v in summary["share_of_words"].items()} == pytest.approx(
        dict(words)
    )
