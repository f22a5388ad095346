import io
import re
import struct
import subprocess
import sys
from functools import cache

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import correlate

from das_lib.bulk.media import decode, duration
from das_lib.speech.audio import SAMPLE_RATE, AudioError, resample

SNDFILE = {  # name: format, subtype, rate
    "wav-8": ("WAV", "PCM_U8", 8000),
    "wav-16": ("WAV", "PCM_16", 44100),
    "wav-24": ("WAV", "PCM_24", 96000),
    "wav-32": ("WAV", "PCM_32", 192000),
    "wav-float": ("WAV", "FLOAT", 22050),
    "wav-mu-law": ("WAV", "ULAW", 8000),
    "wav-gsm": ("WAV", "GSM610", 8000),
    "aiff": ("AIFF", "PCM_16", 48000),
    "au": ("AU", "PCM_16", 16000),
    "caf": ("CAF", "PCM_16", 44100),
    "nist": ("NIST", "PCM_16", 16000),
    "w64": ("W64", "PCM_16", 44100),
    "rf64": ("RF64", "PCM_16", 44100),
    "flac": ("FLAC", "PCM_24", 48000),
    "vorbis": ("OGG", "VORBIS", 44100),
    "opus": ("OGG", "OPUS", 48000),
    "mp3": ("MP3", "MPEG_LAYER_III", 44100),
}
FFMPEG = {  # name: format, codec, rate
    "m4a": ("ipod", "aac", 44100),
    "alac": ("ipod", "alac", 44100),
    "mp4-fragments": ("mp4", "aac", 44100),
    "mka": ("matroska", "aac", 48000),
    "webm": ("webm", "libopus", 48000),
    "wma": ("asf", "wmav2", 44100),
    "amr": ("amr", "libopencore_amrnb", 8000),
    "aac": ("adts", "aac", 44100),
    "ac3": ("ac3", "ac3", 48000),
    "ts": ("mpegts", "mp2", 48000),
    "avi": ("avi", "mp2", 48000),
    "wavpack": ("wv", "wavpack", 44100),
    "tta": ("tta", "tta", 44100),
}


def sweep(seconds, rate):
    """A tone that rises from 200 Hz by 100 Hz a second, so that every place sounds different."""
    t = np.arange(round(seconds * rate)) / rate
    return (0.5 * np.sin(2 * np.pi * (200 * t + 50 * t**2))).astype(np.float32)


def written(samples, rate=SAMPLE_RATE, form="WAV", subtype="FLOAT"):
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate, format=form, subtype=subtype)
    return buffer.getvalue()


def muxed(samples, rate, form, codec, options=None, layout="mono"):
    """``samples`` of shape [samples] or [channels, samples]."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=form, options=options or {}) as container:
        stream = container.add_stream(codec, rate=rate, layout=layout)
        stream.bit_rate = 12200 if "amr" in codec else 128_000 * len(np.atleast_2d(samples))
        interleaved = np.atleast_2d(samples).T.reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(interleaved, format="flt", layout=layout)
        frame.sample_rate = rate
        resampler = av.AudioResampler(stream.format, layout, rate)
        frames = [*resampler.resample(frame), *resampler.resample(None), None]
        for packet in (packet for frame in frames for packet in stream.encode(frame)):
            container.mux(packet)
    return buffer.getvalue()


@cache
def example(name, seconds=3):
    """A sweep in a form of `SNDFILE` or `FFMPEG`."""
    if name in SNDFILE:
        form, subtype, rate = SNDFILE[name]
        return written(sweep(seconds, rate), rate, form, subtype)
    form, codec, rate = FFMPEG[name]
    options = {"movflags": "frag_keyframe+empty_moov"} if name == "mp4-fragments" else None
    return muxed(sweep(seconds, rate), rate, form, codec, options)


def heard(content, **part):
    return np.concatenate(list(decode(io.BytesIO(content), **part)))


def broken(content, **part):
    """Blocks before the error, and the error."""
    blocks = []
    with pytest.raises(AudioError) as error:
        blocks.extend(decode(io.BytesIO(content), **part))
    return np.concatenate([np.zeros(0), *blocks]), error.value


def assert_same_sound(audio, expected, delay_s=0.06):
    """Alike, apart from what a lossy codec changes and delays."""
    assert audio.dtype == np.float32
    assert abs(len(audio) - len(expected)) <= delay_s * SAMPLE_RATE
    room = int(delay_s * SAMPLE_RATE)
    middle = expected[room:-room]
    at = int(np.argmax(correlate(audio[: len(expected) + room], middle, "valid")))
    cut = audio[at : at + len(middle)]
    assert at <= 2 * room
    assert np.corrcoef(middle[: len(cut)], cut)[0, 1] > 0.95


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
