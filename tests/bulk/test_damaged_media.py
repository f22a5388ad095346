"""Recordings that break off, lie or are damaged."""

import io
import re
import struct
import subprocess
import sys

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import FFMPEG, SNDFILE, assert_same_sound, broken, example, heard, sweep, written

from das_lib.bulk.media import decode, duration
from das_lib.speech.audio import SAMPLE_RATE, AudioError, resample


@pytest.mark.parametrize(
    "name",
    [
        *("wav-16", "wav-float", "aiff", "au", "nist", "w64", "rf64", "flac", "mp3"),
        *("mp4-fragments", "mka", "wavpack", "tta"),
    ],
)
def test_a_recording_that_breaks_off_is_truncated_after_what_is_good(name):
    content = example(name, seconds=10)
    blocks, error = broken(content[: len(content) // 2], block_s=1)
    assert error.reason == "truncated"
    assert 3 < len(blocks) / SAMPLE_RATE < 7
    said_s = float(re.search(r"after ([0-9.]+) s", error.detail)[1])
    assert said_s == pytest.approx(len(blocks) / SAMPLE_RATE, abs=0.01)
    assert_same_sound(blocks.astype(np.float32), sweep(len(blocks) / SAMPLE_RATE, SAMPLE_RATE))


def test_a_part_before_the_break_is_good():
    content = example("wav-16", seconds=10)
    audio = heard(content[: len(content) // 2], start_s=1, duration_s=2)
    assert_same_sound(audio, sweep(3, SAMPLE_RATE)[SAMPLE_RATE:])
    assert broken(content[: len(content) // 2], start_s=7)[1].reason == "truncated"


def test_an_mp4_without_its_index_is_truncated():
    assert "moov" in broken(example("m4a")[:-200])[1].detail


@pytest.mark.parametrize("name", ["mp3", "mp4-fragments"])
def test_a_damaged_packet_is_skipped_and_many_break_the_recording(name):
    content = example(name, seconds=10)
    noise = np.random.default_rng(0).bytes(len(content) // 3)
    middle = len(content) // 2
    assert len(heard(content[:middle] + noise[:40] + content[middle + 40 :])) > 9 * SAMPLE_RATE
    blocks, error = broken(content[:middle] + noise + content[middle + len(noise) :])
    assert error.reason == "truncated"
    assert 3 * SAMPLE_RATE < len(blocks) < 8 * SAMPLE_RATE


@pytest.mark.parametrize("size", [0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFF000, 0x80000000])
def test_a_wav_from_a_pipe_whose_size_nobody_knew_is_whole(size):
    content = bytearray(example("wav-16"))
    struct.pack_into("<I", content, content.index(b"data") + 4, size)
    assert len(heard(bytes(content))) == 3 * SAMPLE_RATE


def test_a_flac_from_a_pipe_whose_length_nobody_knew_is_whole():
    content = bytearray(example("flac"))
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    assert duration(io.BytesIO(content)) is None
    assert len(heard(bytes(content))) == 3 * SAMPLE_RATE
    assert len(heard(bytes(content), start_s=1)) == 2 * SAMPLE_RATE


def test_a_wav_whose_size_is_off_by_its_header_is_whole():
    content = bytearray(example("wav-16"))
    place = content.index(b"data") + 4
    struct.pack_into("<I", content, place, struct.unpack_from("<I", content, place)[0] + 44)
    assert len(heard(bytes(content))) == 3 * SAMPLE_RATE


def test_an_mp3_without_an_index_is_heard_to_its_end():
    quiet_then_loud = np.concatenate([sweep(5, 44100) / 500, sweep(10, 44100)])
    content = written(quiet_then_loud, 44100, "MP3", "MPEG_LAYER_III")
    content = content[content.index(b"\xff\xfb", 4) :]  # without the frame of the Xing header
    assert_same_sound(heard(content), resample(quiet_then_loud, 44100))


@pytest.mark.parametrize("name", ["mp3", "vorbis", "opus"])
def test_recordings_one_after_the_other_in_a_file_are_all_heard(name):
    tag = b"ID3\x03\0\0\0\0\x0f\x76" + bytes(2038) if name == "mp3" else b""
    form, subtype, rate = SNDFILE[name]
    again = written(sweep(4, rate), rate, form, subtype)
    audio = heard(example(name) + tag + again)
    assert_same_sound(audio[: 3 * SAMPLE_RATE], sweep(3, SAMPLE_RATE))
    assert_same_sound(audio[3 * SAMPLE_RATE :], sweep(4, SAMPLE_RATE), delay_s=0.1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 3e38])
def test_samples_that_are_not_finite_are_found_after_good_blocks(value):
    samples = sweep(10, 48000)
    samples[7 * 48000 : 7 * 48000 + 9] = [value, -value] * 4 + [value]
    blocks, error = broken(written(np.stack([samples, samples], axis=1), 48000), block_s=1)
    assert error.reason == "not-finite"
    assert 5 * SAMPLE_RATE <= len(blocks) <= 7 * SAMPLE_RATE
    assert np.isfinite(blocks).all()


def test_silence_is_audio():
    assert not heard(written(np.zeros(SAMPLE_RATE))).any()


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile 'secret.wav'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:3\n#EXTINF:3,\nsecret.wav\n#EXT-X-ENDLIST\n",
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=audio 5004 RTP/AVP 0\n",
    ],
    ids=["concat", "hls", "sdp"],
)
def test_a_playlist_does_not_open_what_it_names(playlist, tmp_path, monkeypatch):
    (tmp_path / "secret.wav").write_bytes(example("wav-16"))
    monkeypatch.chdir(tmp_path)
    assert broken(playlist.encode())[1].reason == "not-audio"


@pytest.mark.parametrize("name", ["wav-16", "flac", "mp3", "m4a"])
def test_a_file_that_cannot_be_read_says_so_and_not_that_it_is_no_audio(name):
    content = example(name, seconds=10)

    class Failing(io.BytesIO):
        def read(self, size=-1):
            if self.tell() > len(content) // 2:
                raise self.error
            return super().read(size)

    for error, reason in [
        (OSError(5, "Input/output error"), "storage"),
        (AudioError("denied", "s3://b/x"), "denied"),
    ]:
        file = Failing(content)
        file.error = error
        with pytest.raises(AudioError) as raised:
            list(decode(file))
        assert raised.value.reason == reason


def test_the_file_stays_open_and_can_be_heard_again(tmp_path):
    for name in ("flac", "m4a"):
        (tmp_path / name).write_bytes(example(name))
        with open(tmp_path / name, "rb") as file:
            first = next(decode(file, block_s=1))
            file.seek(77)
            assert np.array_equal(np.concatenate(list(decode(file)))[: len(first)], first)


MEMORY = """
import resource, sys
from das_lib.bulk.media import decode
def peak(path):
    with open(path, "rb") as file:
        count = sum(map(len, decode(file)))
    return count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(peak(sys.argv[1])[1], *peak(sys.argv[2]))
"""


@pytest.mark.parametrize("form", [("FLAC", "PCM_16"), ("MP3", "MPEG_LAYER_III")])
def test_memory_does_not_grow_with_the_length(form, tmp_path):
    for name, minutes in (("short", 1), ("long", 60)):
        path = tmp_path / name
        with soundfile.SoundFile(path, "w", 8000, 1, form[1], format=form[0]) as file:
            for _ in range(minutes):
                file.write(np.zeros(60 * 8000, np.float32))
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, tmp_path / "short", tmp_path / "long"],
        capture_output=True,
        text=True,
        check=True,
    )
    before_mib, count, after_mib = map(float, done.stdout.split())
    assert count == 3600 * SAMPLE_RATE  # 220 MiB
    assert after_mib < before_mib + 30


@given(content=st.binary(max_size=3000), name=st.sampled_from([None, *SNDFILE, *FFMPEG]))
@settings(deadline=None, max_examples=150)
def test_any_bytes_give_finite_audio_or_a_reason(content, name):
    head = example(name)[:64] if name else b""
    assert_audio_or_reason(head + content)


@given(
    name=st.sampled_from([*SNDFILE, *FFMPEG]),
    changes=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 255)), max_size=12),
    in_header=st.booleans(),
    end=st.floats(0, 1),
    start_s=st.sampled_from([0.0, 0.5, 2.9, 11.0]),
)
@settings(deadline=None, max_examples=200)
def test_damaged_recordings_give_finite_audio_or_a_reason(name, changes, in_header, end, start_s):
    content = bytearray(example(name))
    for place, value in changes:
        content[int(place * (min(400, len(content)) - 1 if in_header else len(content) - 1))] = (
            value
        )
    if end > 0.3:
        content = content[: int(end * len(content))]
    assert_audio_or_reason(bytes(content), start_s=start_s)


def assert_audio_or_reason(content, **part):
    duration(io.BytesIO(content))
    blocks, reason = [], "truncated"
    try:
        blocks.extend(decode(io.BytesIO(content), **part))
    except AudioError as error:
        reason = error.reason
    assert reason in {
        *("not-audio", "no-audio-stream", "encrypted", "truncated", "empty-audio"),
        *("not-finite", "channel-missing", "out-of-range"),
    }
    for block in blocks:
        assert (block.dtype, block.ndim) == (np.float32, 1)
        assert np.isfinite(block).all()
