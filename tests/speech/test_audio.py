import io

import numpy as np
import pytest
import soundfile

from das_lib.speech.audio import SAMPLE_RATE, AudioError, read_audio, resample, to_flac


def tone(seconds=0.5, rate=SAMPLE_RATE, hz=440.0):
    return (0.5 * np.sin(2 * np.pi * hz * np.arange(int(seconds * rate)) / rate)).astype(np.float32)


def test_flac_keeps_every_16_bit_sample():
    pcm = np.random.default_rng(0).integers(-32767, 32768, 4000).astype(np.int16)
    again = read_audio(to_flac(pcm.astype(np.float32) / 32767))
    assert np.array_equal(np.round(again * 32768).astype(np.int16), pcm)


@pytest.mark.parametrize("rate", [8000, 22050, 44100, 48000])
def test_any_rate_becomes_16_khz_with_the_same_tone(rate):
    audio = resample(tone(rate=rate), rate)
    assert abs(len(audio) - SAMPLE_RATE // 2) <= 1
    spectrum = np.abs(np.fft.rfft(audio * np.hanning(len(audio))))
    assert abs(np.argmax(spectrum) * SAMPLE_RATE / len(audio) - 440) < 4


def test_channels_are_mixed(tmp_path):
    left = tone()
    soundfile.write(tmp_path / "s.wav", np.stack([left, 0 * left], axis=1), SAMPLE_RATE)
    assert np.allclose(read_audio(tmp_path / "s.wav"), left / 2, atol=1e-4)


def wav(samples):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, SAMPLE_RATE, format="WAV")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "not-audio"),
        (b"this is text, not a recording" * 9, "not-audio"),
        (to_flac(tone())[:100], "not-audio"),
        (wav(np.zeros(0)), "empty-audio"),
        (wav(np.zeros(8000)), "silent"),
    ],
    ids=["empty file", "text", "cut header", "no samples", "silence"],
)
def test_what_is_no_recording_has_a_reason(content, reason, tmp_path):
    (tmp_path / "clip").write_bytes(content)
    for source in (content, tmp_path / "clip"):
        with pytest.raises(AudioError) as error:
            read_audio(source)
        assert error.value.reason == reason


def test_a_missing_file_and_a_folder_are_missing_audio(tmp_path):
    for path in (tmp_path / "none.wav", tmp_path):
        with pytest.raises(AudioError) as error:
            read_audio(path)
        assert error.value.reason == "missing-audio"
