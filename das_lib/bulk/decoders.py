"""libsndfile and FFmpeg behind one form: a recording as pieces of one channel, at its own rate.

libsndfile reads sound that is not compressed, and FLAC: to the sample, and it knows how much there
should be. FFmpeg reads the rest. MP3 and OGG are FFmpeg's too, though libsndfile knows them: it
hears only the first of the parts that a chained OGG stream has, and ends an MP3 without an index
where the bit rate of its first frame puts the end.
"""

import itertools
import re
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, BinaryIO

import av
import av.error
import numpy as np
import numpy.typing as npt
import soundfile
from av.audio.frame import AudioFrame, format_dtypes
from av.audio.plane import AudioPlane
from av.audio.stream import AudioStream
from av.stream import Discard

from das_lib.speech.audio import Audio, AudioError

TOLERANCE_S = 0.5  # headers are wrong by so much without harm: an odd byte, the encoder's delay
MAX_DAMAGE_S = 1.0  # of packets that do not decode and are skipped, as players do
SEEK_AFTER_S = 10.0  # up to here, what lies before is decoded and dropped
SEEK_MARGIN_S = 2.0  # where decoding begins before the part: indexes are coarse, codecs look back
PIECE_VALUES = 2**20  # samples times channels of a piece

LIBRARY_ERRORS = (
    *(soundfile.SoundFileError, av.error.FFmpegError),
    *(ArithmeticError, LookupError, OSError, RuntimeError, ValueError),
)
"""What the libraries raise for bytes that they do not understand."""

Piece = tuple[int, int, Audio]
"""Rate in Hz, the place of the first sample in the recording, the samples of one channel."""

ENCRYPTED = "protected by DRM; give a copy without it"

_CUT = re.compile(r"^ *(?:data|SSND|Data Size|riff|Riff size) *: (\d+) \(should be (\d+)\)", re.M)
_NIST_SAMPLES = re.compile(rb"sample_count -i (\d+)")
_UNKNOWN = 2**63 - 1  # frames of a FLAC stream that was written to a pipe
_ENCRYPTED = ("aavd", "drmi", "drms", "enca")  # codec tags of Audible, Apple and MPEG
# Containers whose header holds the length. FFmpeg guesses that of others from the bit rate.
_MEASURED = ("ape", "asf", "caf", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "tta", "wv")
# Those that FFmpeg seeks in to the millisecond; in ASF it is a tenth of a second off.
_EXACT = ("avi", "matroska,webm", "mov,mp4,m4a,3gp,3g2,mj2", "mp3", "mpegts", "ogg")


class Sndfile:
    """A file that libsndfile opened."""

    def __init__(self, file: BinaryIO) -> None:
        """Open a file.

        Raises:
            LIBRARY_ERRORS: libsndfile does not know it.
        """
        file.seek(0)
        head = file.read(1024)
        file.seek(0)
        self._sound = _Sequential(file)
        self.format = self._sound.format
        self.heard_s = 0.0
        """Where the last piece ended."""
        self._frames = self._sound.frames
        self.length_s = None if self._frames == _UNKNOWN else self._frames / self._sound.samplerate
        """By the header; None: it does not say."""
        self._promised_s = self.length_s or 0.0
        # libsndfile takes a file that was cut as it is, and only notes it in its log.
        if (cut := _CUT.search(self._sound.extra_info)) is not None:
            promised, there = map(int, cut.groups())
            # 0xFFFFFFFF, 0x7FFFF000 and the like are from those who wrote to a pipe.
            if 0 < promised % 2**31 < 2**31 - 2**16:
                self._promised_s *= promised / max(there, 1)
        elif self.format == "NIST" and (samples := _NIST_SAMPLES.search(head)):
            self._promised_s = int(samples[1]) / self._sound.samplerate

    def close(self) -> None:
        """Free the library's memory; the file stays open."""
        self._sound.close()

    def pieces(self, start_s: float, channel: int | None) -> Iterator[Piece]:
        """The recording from ``start_s`` on.

        Raises:
            AudioError: ``channel-missing`` or ``truncated``.
        """
        rate, channels = self._sound.samplerate, self._sound.channels
        _check_channel(channel, channels)
        count = max(1, min(rate, PIECE_VALUES // channels))
        place = min(round(start_s * rate), self._frames)
        self.heard_s = place / rate
        try:
            if 0 < place < self._frames:
                self._sound.seek(place)
            while place < self._frames:
                values = self._sound.read(count, dtype="float32", always_2d=True)
                if not len(values):
                    break
                self.heard_s = (place + len(values)) / rate
                yield rate, place, _mono(values.T, channel)
                place += len(values)
        except LIBRARY_ERRORS as error:
            raise _broken(self.heard_s, f"libsndfile: {first_line(error)}") from error
        if self._promised_s - self.heard_s > TOLERANCE_S:
            raise _truncated(self.heard_s, self._promised_s)


class _Sequential(soundfile.SoundFile):
    """Reads on from where it is: SoundFile seeks after every read, and FLAC decodes all twice."""

    def seekable(self) -> bool:
        return False


class FFmpeg:
    """A file that FFmpeg opened, by its best stream of sound."""

    def __init__(self, file: BinaryIO, second_opinion_s: float | None) -> None:
        """Open a file; ``second_opinion_s`` is the length that libsndfile gives it, if it does.

        Raises:
            AudioError: ``no-audio-stream``, ``encrypted``, or ``not-audio`` (an unknown codec).
            LIBRARY_ERRORS: FFmpeg does not know it.
        """
        file.seek(0)
        # A playlist must not make us read what it names, here or in the network.
        options = {"protocol_whitelist": "none"}
        self._container = av.open(file, "r", options=options, metadata_errors="replace")
        try:
            self._stream = self._best_stream()
        except BaseException:
            self.close()
            raise
        self.heard_s = 0.0
        """Where the last piece ended."""
        self._measure(second_opinion_s)

    def close(self) -> None:
        """Free the library's memory; the file stays open."""
        self._container.close()

    def pieces(self, start_s: float, channel: int | None) -> Iterator[Piece]:
        """The recording from ``start_s`` or somewhat before it on.

        Time counts from the first sample; where a container has gaps, they are left out.

        Raises:
            AudioError: ``channel-missing``, ``encrypted``, ``truncated``, or ``not-audio`` (nothing
                could be decoded).
        """
        frames, place, rate = *self._from(start_s), None
        for frame in frames:
            _check_channel(channel, frame.layout.nb_channels)
            if rate not in (None, frame.sample_rate):  # a stream may change its mind
                place = round(place * frame.sample_rate / rate)
            rate = frame.sample_rate
            self.heard_s = (place + frame.samples) / rate
            yield rate, place, _mono(_values(frame), channel)
            place += frame.samples
        if self._promised_s - self.heard_s > TOLERANCE_S:
            raise _truncated(self.heard_s, self._promised_s)

    def _best_stream(self) -> AudioStream:
        streams = self._container.streams
        # FFmpeg calls none the best that it cannot decode.
        stream = streams.best("audio") or next(iter(streams.audio), None)
        if not isinstance(stream, AudioStream):
            found = ", ".join(sorted({s.type for s in streams})) or "nothing"
            raise AudioError("no-audio-stream", f"a {self._container.format.name} with {found}")
        tag = ""
        with suppress(AttributeError, UnicodeDecodeError):  # no codec; a tag that is no text
            tag = stream.codec_tag
        if tag in _ENCRYPTED or any(k.startswith("ASF_Prot") for k in self._container.metadata):
            raise AudioError("encrypted", ENCRYPTED)
        if not stream.codec_context:
            raise AudioError("not-audio", "FFmpeg: no decoder for its stream of sound")
        for other in streams:
            if other is not stream:
                other.discard = Discard.all  # the pictures of a video need not be read
        return stream

    def _measure(self, second_opinion_s: float | None) -> None:
        stream, container = self._stream, self._container
        alone = len(container.streams) == 1
        length_s = None
        if stream.duration and stream.time_base:
            length_s, alone = float(stream.duration * stream.time_base), True
        elif container.duration:
            length_s = container.duration / 1e6
        if second_opinion_s is None:
            is_known = container.format.name in _MEASURED
        else:  # a length that both read is not guessed
            is_known = abs((length_s or 0.0) - second_opinion_s) < TOLERANCE_S
        self.length_s = length_s if is_known else None
        """By the header; None: it does not say."""
        self._promised_s = (self.length_s or 0.0) if alone else 0.0

    def _from(self, start_s: float) -> tuple[Iterator[AudioFrame], int]:
        """The frames from ``start_s`` or before it on, and the place of their first sample."""
        stream, is_exact = self._stream, self._container.format.name in _EXACT
        if start_s < SEEK_AFTER_S or not is_exact or not stream.time_base:
            return self._decoded(), 0
        origin, frames, first = stream.start_time or 0, self._decoded(), None
        with suppress(*LIBRARY_ERRORS):
            ahead = int((start_s - SEEK_MARGIN_S) / stream.time_base)
            self._container.seek(origin + ahead, stream=stream)
            first = next(frames, None)
        if first is not None and first.pts is not None and first.time_base:
            place_s = float((first.pts - origin) * first.time_base)
            if 0 <= place_s <= start_s:
                return itertools.chain([first], frames), round(place_s * first.sample_rate)
        # Beyond the end, or an index that cannot be trusted.
        with suppress(*LIBRARY_ERRORS):  # a form that cannot seek is still at its beginning
            self._container.seek(origin, stream=stream)
        return self._decoded(), 0

    def _decoded(self) -> Iterator[AudioFrame]:
        """The frames from where the container is on."""
        packets = self._container.demux(self._stream)
        damage_s, has_sound, problem = 0.0, False, None
        while True:
            packet = None
            frames: list[AudioFrame] = []
            try:
                packet = next(packets)
                frames = packet.decode()
            except StopIteration:
                break
            except LIBRARY_ERRORS as error:
                problem = error
                duration = (packet and packet.duration) or 0
                damage_s += max(0.02, float(duration * (self._stream.time_base or 0)))
            if packet is not None and packet.has_sidedata("encryption_info"):
                raise AudioError("encrypted", ENCRYPTED)
            if problem is not None and has_sound and (packet is None or damage_s > MAX_DAMAGE_S):
                raise _broken(self.heard_s, f"FFmpeg: {first_line(problem)}") from problem
            if packet is None:
                break
            has_sound = has_sound or bool(frames)
            yield from frames
        if problem is not None and not has_sound:
            detail = f"nothing can be decoded (FFmpeg: {first_line(problem)})"
            raise AudioError("not-audio", detail) from problem


def _values(frame: AudioFrame) -> npt.NDArray[np.floating]:
    """Samples of a frame in [-1, 1], shape [channels, samples]."""
    # AudioFrame.to_ndarray, of PyAV 18.1, reads beyond the planes where there are 8 or more.
    channels, dtype = frame.layout.nb_channels, np.dtype(format_dtypes[frame.format.name])
    planes, count = (channels, 1) if frame.format.is_planar else (1, channels)
    buffers: list[Any] = [AudioPlane(frame, index) for index in range(planes)]
    values = np.stack([np.frombuffer(b, dtype, frame.samples * count) for b in buffers])
    values = values.reshape(planes, -1, count)[0].T if count > 1 else values
    if values.dtype.kind == "u":
        return values / np.float32(128) - np.float32(1)
    if values.dtype.kind == "i":
        return values / np.float32(2 ** (8 * values.itemsize - 1))
    return values


def _mono(values: npt.NDArray[Any], channel: int | None) -> Audio:
    """A channel, or the mean of all; ``values`` has shape [channels, samples]."""
    if channel is not None:
        values = values[channel : channel + 1]
    with np.errstate(all="ignore"):  # what is not finite is found later
        return values.mean(axis=0, dtype=np.float32)


def first_line(error: BaseException) -> str:
    """What a library said, short."""
    said = getattr(error, "strerror", None) or getattr(error, "error_string", None) or str(error)
    return (said.splitlines() or [type(error).__name__])[0][:120]


def _check_channel(channel: int | None, count: int) -> None:
    if channel is not None and not 0 <= channel < count:
        raise AudioError("channel-missing", f"channel={channel}, but there are {count}, from 0")


def _broken(heard_s: float, why: str) -> AudioError:
    return AudioError("truncated", f"nothing can be decoded after {heard_s:.2f} s ({why})")


def _truncated(heard_s: float, promised_s: float) -> AudioError:
    return AudioError("truncated", f"ends after {heard_s:.2f} s; its header says {promised_s:.2f}")
