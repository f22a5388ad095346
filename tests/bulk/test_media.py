"""Any form of recording, decoded bit by bit."""

import io
import struct

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sounds import FFMPEG, SNDFILE, assert_same_sound, broken, example, heard, muxed, sweep, written

from das_lib.bulk.media import decode, duration
from das_lib.speech.audio import SAMPLE_RATE, resample


@pytest.mark.parametrize("name", [*SNDFILE, *FFMPEG])
def test_every_form_is_heard_as_it_was_written(name):
    assert_same_sound(heard(example(name)), sweep(3, SAMPLE_RATE))


@pytest.mark.parametrize("name", ["wav-16", "flac", "mp3", "vorbis", "m4a", "mka", "wavpack"])
def test_the_header_tells_the_duration(name):
    assert duration(io.BytesIO(example(name))) == pytest.approx(3, abs=0.06)


@pytest.mark.parametrize("content", [b"", b"no sound", example("aac"), example("wav-16")[:30]])
def test_a_duration_that_no_header_tells_is_none(content):
    assert duration(io.BytesIO(content)) is None


@pytest.mark.parametrize("rate", [8000, 11025, 16000, 22050, 44100, 48000, 96000, 192000])
@pytest.mark.parametrize("seconds", [0.01, 3.7])
def test_the_stream_is_resampled_as_the_whole_would_be(rate, seconds):
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, round(seconds * rate)).astype(np.float32)
    expected = resample(samples, rate)
    audio = heard(written(samples, rate), block_s=0.7)
    assert len(audio) == len(expected)
    assert np.allclose(audio, expected, atol=1e-6)


@given(
    name=st.sampled_from(["wav-16", "flac", "mp3", "opus", "m4a"]),
    block_s=st.floats(0.001, 4),
)
@settings(deadline=None, max_examples=25)
def test_any_length_of_block_gives_the_same_audio(name, block_s):
    blocks = list(decode(io.BytesIO(example(name)), block_s=block_s))
    size = max(1, round(block_s * SAMPLE_RATE))
    assert {len(block) for block in blocks[:-1]} <= {size}
    assert 0 < len(blocks[-1]) <= size
    assert np.array_equal(np.concatenate(blocks), heard(example(name)))


@given(
    form=st.sampled_from([("WAV", "FLOAT"), ("FLAC", "PCM_16"), ("AIFF", "PCM_16")]),
    start=st.integers(0, 39_999),
    count=st.integers(1, 60_000),
)
@settings(deadline=None, max_examples=40)
def test_a_part_is_exact_to_the_sample_and_ends_with_the_recording(form, start, count):
    whole = np.arange(40_000, dtype=np.float32) / 40_000
    content = written(whole, SAMPLE_RATE, *form)
    part = heard(content, start_s=start / SAMPLE_RATE, duration_s=count / SAMPLE_RATE)
    assert len(part) == min(count, len(whole) - start)
    assert np.allclose(part, whole[start : start + count], atol=1e-4)


@pytest.mark.parametrize("name", ["flac", "mp3", "vorbis", "opus", "alac", "webm", "wma", "ts"])
@pytest.mark.parametrize("start_s", [1.5, 17.3])
def test_a_part_of_a_compressed_recording_is_where_it_is_in_the_whole(name, start_s):
    content = example(name, seconds=30)
    start = round(start_s * SAMPLE_RATE)
    part = heard(content, start_s=start_s, duration_s=4)
    assert len(part) == 4 * SAMPLE_RATE
    whole = heard(content)[start : start + 4 * SAMPLE_RATE]
    assert np.abs(part - whole)[800:-800].max() < 0.05


def test_channels_are_averaged_or_chosen():
    channels = np.stack([sweep(1, SAMPLE_RATE) * gain for gain in range(8)], axis=1) / 8
    content = written(channels, subtype="FLOAT")
    assert np.allclose(heard(content), channels.mean(axis=1), atol=1e-6)
    for channel in range(8):
        assert np.array_equal(heard(content, channel=channel), channels[:, channel])


def test_channels_of_a_compressed_recording_are_averaged_or_chosen():
    sides = np.stack([sweep(2, 48000), 0 * sweep(2, 48000)], axis=1)
    content = written(sides, 48000, "OGG", "OPUS")
    left, right, both = heard(content, channel=0), heard(content, channel=1), heard(content)
    assert np.abs(right).max() < 0.05 < 0.4 < np.abs(left).max()
    assert np.allclose(both, (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize(
    ("form", "codec", "layout", "count"),
    [
        ("ipod", "aac", "7.1", 8),
        ("ipod", "alac", "stereo", 2),
        ("wv", "wavpack", "7.1", 8),
        ("wv", "wavpack", "hexadecagonal", 16),
        ("mov", "pcm_s24le", "hexadecagonal", 16),
    ],
)
def test_any_number_of_channels_is_heard_in_their_order(form, codec, layout, count):
    channels = np.stack([sweep(1, 44100) * (channel + 1) / count for channel in range(count)])
    content = muxed(channels, 44100, form, codec, layout=layout)
    peak = np.abs(channels.mean(axis=0)).max()
    assert np.abs(heard(content)).max() == pytest.approx(peak, rel=0.2)
    for channel in set(range(count)) - ({3} if codec == "aac" else set()):  # 3 has basses only
        peak = np.abs(channels[channel]).max()
        assert np.abs(heard(content, channel=channel)).max() == pytest.approx(peak, rel=0.2)
    assert broken(content, channel=count)[1].reason == "channel-missing"


@pytest.mark.parametrize("name", ["wav-16", "mp3"])
@pytest.mark.parametrize("channel", [1, -1])
def test_a_channel_that_is_not_there_is_missing(name, channel):
    _, error = broken(example(name), channel=channel)
    assert (error.reason, "there are 1" in error.detail) == ("channel-missing", True)


@pytest.mark.parametrize("name", ["wav-16", "flac", "mp3", "m4a", "webm", "aac"])
@pytest.mark.parametrize("start_s", [3.2, 1000, 1e12, -1.0, float("nan"), float("inf")])
def test_a_part_outside_the_recording_is_out_of_range(name, start_s):
    assert broken(example(name), start_s=start_s)[1].reason == "out-of-range"


@pytest.mark.parametrize("duration_s", [0.0, -1.0, 1e-9, float("nan")])
def test_a_part_without_samples_is_out_of_range(duration_s):
    assert broken(example("wav-16"), start_s=1, duration_s=duration_s)[1].reason == "out-of-range"


def video():
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("mpeg4", rate=10, width=64, height=64, pix_fmt="yuv420p")
        for _ in range(10):
            frame = av.VideoFrame.from_ndarray(np.zeros((64, 64, 3), np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def encrypted():
    key = {"encryption_key": "0" * 32, "encryption_kid": "1" * 32}
    options = {"encryption_scheme": "cenc-aes-ctr", **key}
    return muxed(sweep(1, 44100), 44100, "mp4", "aac", options)


def protected_wma():
    """With the object of an ASF header that says so, after the 30 bytes of the header's own."""
    content = example("wma")
    texts = [struct.pack("<I", len(t)) + t for t in (b"?", b"DRM\0", b"key\0", b"http://x\0")]
    body = b"".join(texts)
    guid = bytes.fromhex("fbb3112223bdd211b4b700a0c955fc6e")
    size, count = struct.unpack_from("<QI", content, 16)
    own = struct.pack("<QI", size + 24 + len(body), count + 1)
    added = guid + struct.pack("<Q", 24 + len(body)) + body
    return content[:16] + own + content[28:30] + added + content[30:]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty-audio"),
        (b"this is text, not a recording" * 99, "not-audio"),
        (b"<html><body>404 Not Found</body></html>", "not-audio"),
        (b"RIFF", "not-audio"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "not-audio"),
        (written(np.zeros(0)), "empty-audio"),
        (written(np.zeros(1), 192000), "empty-audio"),
        (written(np.zeros(0), form="FLAC", subtype="PCM_16"), "empty-audio"),
        (written(sweep(1, SAMPLE_RATE), 3), "not-audio"),
        (video(), "no-audio-stream"),
        (encrypted(), "encrypted"),
        (example("m4a").replace(b"mp4a", b"drms"), "encrypted"),
        (protected_wma(), "encrypted"),
        (example("alac").replace(b"alac", b"????"), "not-audio"),
    ],
    ids=[
        *("no bytes", "text", "a web page", "four bytes", "cut header", "no samples"),
        *("less than a sample", "no samples in FLAC", "3 Hz", "pictures only", "cenc"),
        *("fairplay", "protected wma", "unknown codec"),
    ],
)
def test_what_cannot_be_heard_has_a_reason(content, reason):
    blocks, error = broken(content)
    assert (error.reason, len(blocks)) == (reason, 0)
    assert len(error.detail) < 300


def test_both_libraries_say_why_something_is_no_audio():
    assert str(broken(b"\1" * 500)[1]) == (
        "not-audio: libsndfile: Format not recognised.; "
        "FFmpeg: Invalid data found when processing input"
    )


def test_the_sound_of_a_video_is_heard_without_reading_its_pictures(tmp_path):
    picture = av.VideoFrame.from_ndarray(np.zeros((400, 400), np.uint8), format="gray")
    with av.open(str(tmp_path / "v.mov"), "w") as container:
        size = {"width": 400, "height": 400}
        pictures = container.add_stream("rawvideo", rate=10, pix_fmt="yuv420p", **size)
        sound = container.add_stream("aac", rate=16000, layout="mono")
        for second in range(10):
            for _ in range(10):
                container.mux(pictures.encode(picture.reformat(format="yuv420p")))
            samples = sweep(10, 16000)[None, second * 16000 : (second + 1) * 16000]
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate = 16000
            container.mux(sound.encode(frame))
        container.mux(sound.encode(None))

    class Counted(io.FileIO):
        count = 0

        def read(self, size=-1):
            content = super().read(size)
            self.count += len(content)
            return content

    with Counted(tmp_path / "v.mov") as file:
        audio = np.concatenate(list(decode(file)))
        assert file.count < (tmp_path / "v.mov").stat().st_size / 2
    assert_same_sound(audio, sweep(10, 16000), delay_s=0.15)
