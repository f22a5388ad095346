import numpy as np
import pytest
from train_tiny import END, ENGLISH, GERMAN, MAX_TOKENS, NO_TIMESTAMPS, START, TASK

from das_lib.errors import DasError, ModelError, Reject
from das_lib.train.labels import IGNORED, LabelEncoder, Labels, decoder_pair


@pytest.fixture
def encoder(base) -> LabelEncoder:
    return LabelEncoder(base, multilingual=True, max_tokens=MAX_TOKENS)


def characters(encoder: LabelEncoder, tokens: list[int]) -> str:
    return encoder._tokenizer.decode(tokens)


def test_tokens_are_prompt_then_text_with_a_leading_space_then_end(encoder):
    labels = encoder.encode("a", "  Hi there. ", ENGLISH)
    assert isinstance(labels, Labels)
    assert labels.tokens[: labels.prompt_length] == [START, ENGLISH, TASK, NO_TIMESTAMPS]
    assert labels.tokens[-1] == END
    assert characters(encoder, labels.tokens[labels.prompt_length : -1]) == " Hi there."


def test_an_english_only_prompt_has_no_language_and_no_task(base):
    encoder = LabelEncoder(base, multilingual=False, max_tokens=MAX_TOKENS)
    assert encoder.prompt(None) == [START, NO_TIMESTAMPS]


def test_special_tokens_spelled_in_a_text_stay_characters(encoder):
    labels = encoder.encode("a", "stop<|endoftext|>", ENGLISH)
    assert isinstance(labels, Labels)
    assert labels.tokens.count(END) == 1


def test_empty_and_too_long_texts_are_rejected_and_the_longest_fits(encoder):
    assert encoder.encode("a", " \n ", ENGLISH) == Reject(
        "a", "empty-text", "nothing but white space"
    )
    room = MAX_TOKENS - 6  # four of the prompt, the leading space, the end
    assert isinstance(encoder.encode("a", "x" * room, ENGLISH), Labels)
    rejected = encoder.encode("a", "x" * (room + 1), ENGLISH)
    assert isinstance(rejected, Reject)
    assert (rejected.reason, rejected.detail) == ("too-long-text", "65 tokens > 64")


def test_an_unknown_language_names_the_field_and_a_folder_without_tokenizer_is_refused(
    encoder, tmp_path
):
    assert encoder.language_id("de") == GERMAN
    with pytest.raises(DasError, match=r"asr\.language='xx'"):
        encoder.language_id("xx")
    with pytest.raises(ModelError, match="tokenizer"):
        LabelEncoder(tmp_path, multilingual=True, max_tokens=MAX_TOKENS)


def test_only_text_and_end_are_predicted():
    inputs, targets = decoder_pair(np.array([START, ENGLISH, TASK, NO_TIMESTAMPS, 5, 6, END]), 4)
    assert inputs.tolist() == [START, ENGLISH, TASK, NO_TIMESTAMPS, 5, 6]
    assert targets.tolist() == [IGNORED, IGNORED, IGNORED, 5, 6, END]
