import pytest

from das_lib.evaluation.wer import corpus_wer, normalise, normaliser_name


def test_the_rate_is_of_the_whole_corpus_not_a_mean_of_rates():
    wer = corpus_wer([("one word wrong here", "one word right here"), ("yes", "no")])
    assert (wer.edits, wer.words, wer.utterances) == (2, 5, 2)
    assert wer.wer == pytest.approx(0.4)


def test_both_sides_are_normalised_as_whisper_does():
    assert normalise("Five hundred twenty four COLOURS, um!") == "524 colors"
    assert corpus_wer([("It's twenty one degrees.", "it is 21 degrees")]).edits == 0


def test_counts_tell_substitutions_deletions_and_insertions():
    wer = corpus_wer([("a cat sat down", "a dog sat"), ("stop", "stop it now")])
    assert (wer.substitutions, wer.deletions, wer.insertions) == (1, 1, 2)


def test_references_without_words_are_left_out():
    assert corpus_wer([("...", "noise"), ("[music]", "x")]) is None
    assert corpus_wer([("...", "noise"), ("yes", "yes")]).utterances == 1


def test_an_empty_transcript_is_all_deletions():
    assert corpus_wer([("three words here", "")]).deletions == 3


def test_the_normaliser_is_named_with_its_version():
    assert "EnglishTextNormalizer" in normaliser_name()
