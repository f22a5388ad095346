import numpy as np
import pytest

from das_lib.speech.audio import SAMPLE_RATE
from das_lib.speech.checks import check_speech

TEXT = "what is the weather today"


def noise(seconds, breath=0.05):
    samples = np.random.default_rng(0).normal(0, 0.1, int(seconds * SAMPLE_RATE))
    samples[len(samples) - int(breath * SAMPLE_RATE) :] = 0
    return samples.astype(np.float32)


def pause(seconds):
    return np.concatenate([noise(0.5), noise(seconds, seconds), noise(0.5)])


def test_plausible_speech_passes():
    assert check_speech(noise(1.5), TEXT) is None
    assert check_speech(noise(1.0), "no") is None
    assert check_speech(pause(1.0), TEXT) is None


@pytest.mark.parametrize(
    ("audio", "text", "reason"),
    [
        (noise(0), TEXT, "empty-audio"),
        (0 * noise(2), TEXT, "silent"),
        (noise(2) * np.nan, TEXT, "not-audio"),
        (np.sign(noise(2)), TEXT, "clipped"),
        (noise(2, breath=0), TEXT, "cut-off"),
        (pause(2.5), TEXT, "long-silence"),
        (np.concatenate([noise(2.5, 2.5), noise(1)]), TEXT, "long-silence"),
        (noise(4, breath=2.5), TEXT, "long-silence"),
        (noise(0.025, 0), "a", "too-short-audio"),
        (noise(31), TEXT * 50, "too-long-audio"),
        (noise(0.2), TEXT, "too-fast"),
        (noise(20), TEXT, "too-slow"),
    ],
)
def test_doubtful_speech_has_a_reason(audio, text, reason):
    code, detail = check_speech(audio.astype(np.float32), text)
    assert code == reason
    assert detail
