"""Windows where the real network hears speech."""

import json
import os
from pathlib import Path

import numpy as np
import pytest

from das_lib.bulk.vad import Vad
from das_lib.bulk.windows import Windows, WindowSettings
from das_lib.speech.audio import SAMPLE_RATE, read_audio

SPEECH = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data")) / "speech" / "librispeech_clean"


@pytest.fixture(scope="module")
def vad():
    return Vad.from_package()


def noise(seconds, level, seed=0):
    rng = np.random.default_rng(seed)
    return (level * rng.standard_normal(seconds * SAMPLE_RATE)).astype(np.float32)


@pytest.mark.parametrize("level", [0, 0.001, 0.03, 0.3])
def test_silence_and_noise_of_a_minute_have_no_window(vad, level):
    windows = Windows([noise(60, level)], vad, WindowSettings())
    assert list(windows) == []
    assert windows.num_samples == 60 * SAMPLE_RATE


@pytest.mark.skipif(not SPEECH.is_dir(), reason=f"no {SPEECH}; set DAS_SHARED_DATA")
def test_real_speech_is_found_between_silence_and_noise(vad):
    lines = (SPEECH / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    clips = [read_audio(SPEECH / json.loads(line)["audio"]) for line in lines[::16][:6]]
    parts, spans, at = [], [], 0
    for clip in clips:
        pause = [np.zeros(3 * SAMPLE_RATE, np.float32), noise(3, 0.001, seed=at)]
        parts += [*pause, clip]
        spans.append((at + 6 * SAMPLE_RATE, at + 6 * SAMPLE_RATE + len(clip)))
        at = spans[-1][1]
    audio = np.concatenate([*parts, np.zeros(3 * SAMPLE_RATE, np.float32)])

    windows = Windows(np.split(audio, range(0, len(audio), 7777)), vad, WindowSettings())
    pieces = [piece for window in windows for piece in window.pieces]
    # Padding, half of the pause that is kept, and what the VAD is off by.
    margin = round((0.2 + WindowSettings().join_gap_s / 2 + 0.3) * SAMPLE_RATE)
    found = 0
    for start, end in spans:
        inside = [p for p in pieces if p.start >= start - margin and p.end <= end + margin]
        assert inside[0].start <= start + margin
        assert inside[-1].end >= end - margin
        found += len(inside)
    assert found == len(pieces)
    assert windows.speech_samples < sum(len(clip) for clip in clips) + 2 * len(clips) * margin
