"""Recordings in every form, made here, and how they are compared."""

import io
from functools import cache

import av
import numpy as np
import pytest
import soundfile
from scipy.signal import correlate

from das_lib.bulk.media import decode
from das_lib.speech.audio import SAMPLE_RATE, AudioError

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
