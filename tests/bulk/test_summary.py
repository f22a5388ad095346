"""What a bulk transcription did: everything that went in is accounted for."""

from collections import Counter
from itertools import chain

import pytest
from bulk_output import Output, heard
from hypothesis import given, settings
from hypothesis import strategies as st

from das_lib.errors import StorageError


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
