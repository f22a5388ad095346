import pytest

from das_lib.bulk.guards import DROPPED, GuardSettings, judge
from das_lib.doubt import compression_ratio
from das_lib.errors import DasError

SPEECH = "What group was Stevie Nicks a part of before Fleetwood Mac?"
LOOP = "so it goes. " * 30


def answer(text=SPEECH, avg_logprob=-0.3, no_speech_prob=0.0):
    return {"text": text, "avg_logprob": avg_logprob, "no_speech_prob": no_speech_prob}


@pytest.mark.parametrize(
    ("heard", "verdict"),
    [
        (answer(), None),
        (answer(LOOP), "repetitive"),
        (answer(avg_logprob=-1.1), "unlikely"),
        (answer(avg_logprob=-1.0), None),
        (answer(avg_logprob=-1.1, no_speech_prob=0.7), "no-speech"),
        (answer(avg_logprob=-0.9, no_speech_prob=0.7), None),
        (answer(avg_logprob=-1.1, no_speech_prob=0.6), "unlikely"),
        (answer(avg_logprob=-1.1, no_speech_prob=None), "unlikely"),
        (answer(LOOP, avg_logprob=-1.1), "repetitive"),
        (answer(LOOP, avg_logprob=-1.1, no_speech_prob=0.7), "no-speech"),
        (answer(" ", avg_logprob=-9.0, no_speech_prob=1.0), None),
    ],
)
def test_an_answer_is_judged_as_openai_whisper_would(heard, verdict):
    assert judge(heard, GuardSettings()) == verdict


def test_only_text_where_nobody_speaks_is_dropped():
    assert set(DROPPED) == {"no-speech"}


def test_settings_move_the_bounds():
    loose = GuardSettings(max_compression_ratio=99, min_avg_logprob=-5, no_speech_threshold=1)
    assert judge(answer(LOOP, avg_logprob=-1.1, no_speech_prob=0.7), loose) is None
    strict = GuardSettings(max_compression_ratio=0.5, min_avg_logprob=-0.1, no_speech_threshold=0)
    assert judge(answer(no_speech_prob=0.01), strict) == "no-speech"
    assert judge(answer(), strict) == "repetitive"


@pytest.mark.parametrize(
    ("name", "value"),
    [("max_compression_ratio", 0), ("min_avg_logprob", 0.1), ("no_speech_threshold", 1.5)],
)
def test_settings_out_of_range_are_refused_by_name(name, value):
    with pytest.raises(DasError, match=f"{name} is {value}, it must be"):
        GuardSettings(**{name: value})


def test_text_that_repeats_itself_compresses_well():
    assert compression_ratio(LOOP) > 2.4 > compression_ratio(SPEECH)
    assert compression_ratio("") == 1.0
