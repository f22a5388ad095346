"""`das bench longform`: clips in long recordings, the same one by one, and faster-whisper.

Clips are joined with silence and faint noise between them: where each is spoken is known. Speed is
compared as faster-whisper works by default, without word times; a second run with them says where
words stand, and what that costs. All hear one recording before any hears the next: what else the
machine does for some minutes, and an hour is many, meets all alike.
"""

import itertools
import statistics
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jiwer
import numpy as np

from das_lib.adml import Adml, Fixed, Transcriber
from das_lib.adml.linear import Precision
from das_lib.bench.faster_whisper import FasterWhisper
from das_lib.bench.timing import measure, publish, ratio, spread
from das_lib.bulk.hear import Heard, HearSettings
from das_lib.bulk.local import hear_locally
from das_lib.bulk.transcript import Word
from das_lib.bulk.vad import Vad
from das_lib.bulk.windows import Windows, WindowSettings
from das_lib.evaluation.wer import corpus_wer, normalise
from das_lib.speech.audio import SAMPLE_RATE, Audio

PAUSES_S = (0.3, 1.5, 3.0)
NOISE = 0.002  # root mean square of every other pause, -54 dBFS
OFF_S = 0.5  # a word further from its clip is out of place
BLOCK = 30 * SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Spoken:
    """A clip in a long recording."""

    clip: int
    text: str
    audio: Audio
    start_s: float

    @property
    def end_s(self) -> float:
        """Where it ends in the recording."""
        return self.start_s + len(self.audio) / SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class Recording:
    """Clips in turn, with pauses; ``audio`` has shape [samples]."""

    audio: Audio
    spoken: list[Spoken]

    @property
    def text(self) -> str:
        """What is said in it."""
        return " ".join(s.text for s in self.spoken)


def join(clips: Sequence[Audio], texts: Sequence[str], minutes: float, first: int = 0) -> Recording:
    """A recording of that length at least, of the clips from ``first`` on, round and round."""
    noise = np.random.default_rng(0)
    parts: list[Audio] = []
    spoken: list[Spoken] = []
    length = 0
    for i in itertools.count():
        if length >= minutes * 60 * SAMPLE_RATE:
            break
        clip = (first + i) % len(clips)
        pause = noise.standard_normal(round(PAUSES_S[i % len(PAUSES_S)] * SAMPLE_RATE))
        parts += [clips[clip], (pause * NOISE * (i % 2)).astype(np.float32)]
        spoken.append(Spoken(clip, texts[clip], clips[clip], length / SAMPLE_RATE))
        length += len(clips[clip]) + len(pause)
    return Recording(np.concatenate(parts), spoken)


def bench_longform(
    model_folder: Path,
    clips: Sequence[Audio],
    texts: Sequence[str],
    adapters: Mapping[str, Path],
    *,
    minutes: float,
    recordings: int,
    precisions: Sequence[Precision],
    batch: int,
    rounds: int,
    threads: int,
    peers: bool,
) -> None:
    """Measure and publish a row for each engine, precision and number of adapters.

    Speed is the median over the recordings in each round, the ratio the median of those within a
    recording.
    """
    made: list[Recording] = []
    for _ in range(recordings):
        first = made[-1].spoken[-1].clip + 1 if made else 0
        made.append(join(clips, texts, minutes, first))
    audios = [one.audio for one in made]
    seconds_of = [len(audio) / SAMPLE_RATE for audio in audios]
    vad = Vad.from_package()
    subjects: dict[str, Callable[[], None]] = {}
    rows: dict[str, dict[str, Any]] = {}
    heard: dict[str, list[Any]] = defaultdict(lambda: [None] * recordings)
    """What the last run of each made of each recording: `Heard`, or faster-whisper's text."""
    places: dict[str, str] = {}
    """The row that says what a run with word times found."""
    for precision, k in itertools.product(precisions, sorted({0, len(adapters)})):
        transcriber = Transcriber.from_pretrained(
            model_folder, adapters if k else {}, precision=precision, language="en"
        )
        strategy = Adml() if k else Fixed(0)
        name = f"das k={k} {precision}"

        def hear(word_times: bool, transcriber: Any, strategy: Any, audio: Audio) -> Heard:
            settings = HearSettings(word_times=word_times)
            options = {"settings": settings, "vad": vad, "batch_size": batch}
            [found] = hear_locally({"": blocks(audio)}, transcriber, strategy, **options)
            return found

        places[f"{name} word times"] = name
        for each, word_times in ((name, False), (f"{name} word times", True)):
            listener = partial(hear, word_times, transcriber, strategy)
            subjects[each] = in_turn(audios, listener, heard[each])
        spoken = [one for recording in made for one in recording.spoken]
        used = sorted({one.clip for one in spoken})
        alone = transcriber.transcribe([clips[i] for i in used], {"das": strategy})
        found = {
            clip: answer["das"].text
            for clip, answer in zip(used, alone, strict=True)
            if isinstance(answer, dict)
        }
        pairs = [(one.text, found[one.clip]) for one in spoken if one.clip in found]
        rows[name] = {"engine": "das", "k": k, "dtype": precision, "wer_clips": _wer(pairs)}
    name = "vad"
    subjects[name] = in_turn(
        audios,
        lambda audio: sum(1 for _ in Windows(blocks(audio), vad, WindowSettings())),
        heard[name],
    )
    rows[name] = {"engine": "windows alone"}
    with ExitStack() as stack:
        if peers:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            for dtype in ("float32", "int8"):
                name = f"faster-whisper {dtype}"
                peer = FasterWhisper(model_folder, folder, dtype, threads)
                listener = stack.enter_context(peer.batched(audios, batch))
                subjects[name] = in_turn(range(recordings), listener, heard[name])
                rows[name] = {"engine": "faster-whisper batched", "k": 0, "dtype": dtype}
        seconds = measure(subjects, rounds=rounds * recordings, warmup=0)
    speeds = {
        name: [length / time for length, time in zip(seconds_of * rounds, times, strict=True)]
        for name, times in seconds.items()
    }
    for name, its in speeds.items():
        if name in places:
            speed = statistics.median(its)
            rows[places[name]] |= {"rtfx_word_times": speed, **_placement(made, heard[name])}
            continue
        row = rows[name]
        row |= {"minutes": sum(seconds_of) / 60, "recordings": recordings}
        row |= {"rtfx": statistics.median(its), "spread": spread(its)}
        if name != "vad":
            texts = [one.transcript.text if isinstance(one, Heard) else one for one in heard[name]]
            row["wer"] = _wer([(one.text, text) for one, text in zip(made, texts, strict=True)])
    _compare(rows, seconds)
    publish("longform", list(rows.values()), ["ratio: this row's speed over faster-whisper's."])


def in_turn(
    recordings: Sequence[Any], listener: Callable[[Any], Any], found: list[Any]
) -> Callable[[], None]:
    """A subject that hears the next recording at each call, round and round.

    ``found`` receives what the listener makes of each, at its place.
    """
    turns = itertools.cycle(range(len(recordings)))

    def hear_next() -> None:
        i = next(turns)
        found[i] = listener(recordings[i])

    return hear_next


def blocks(audio: Audio) -> Iterator[Audio]:
    """A recording as a decoder gives it."""
    return (audio[at : at + BLOCK] for at in range(0, len(audio), BLOCK))


def _placement(made: Sequence[Recording], heard: Sequence[Heard]) -> dict[str, Any]:
    found = [placement(one.spoken, its) for one, its in zip(made, heard, strict=True)]
    return {
        "lost_clips": sum(one["lost_clips"] for one in found),
        "words_in_place": statistics.fmean(one["words_in_place"] for one in found),
    }


def placement(spoken: Sequence[Spoken], heard: Heard) -> dict[str, Any]:
    """Clips of which nothing was heard, and the share of words that stand within 0.5 s of theirs.

    Words are those of the reference that the transcript has at the same place in the alignment. A
    clip is lost if it has none of them and no other word stands in its place either: what was
    misheard is not lost, and the error rate counts it. Of two clips in a row that say the same, a
    word is of the one in which it stands: the alignment cannot tell them apart.
    """
    clips = [i for i, s in enumerate(spoken) for _ in normalise(s.text).split()]
    words = [word for word in heard.transcript.words for _ in normalise(word.text).split()]
    said = " ".join(normalise(s.text) for s in spoken)
    text = " ".join(normalise(word.text) for word in heard.transcript.words)
    aligned = jiwer.process_words(said, text).alignments[0]
    pairs = [
        (_own(spoken, clips[chunk.ref_start_idx + i], word), word)
        for chunk in aligned
        if chunk.type == "equal"
        for i, word in enumerate(words[chunk.hyp_start_idx : chunk.hyp_end_idx])
    ]
    right = sum(_stands_in(spoken[clip], word) for clip, word in pairs)
    missing = {*clips} - {clip for clip, _ in pairs}
    lost = [clip for clip in missing if not any(_stands_in(spoken[clip], w) for w in words)]
    return {"lost_clips": len(lost), "words_in_place": right / max(len(pairs), 1)}


def _own(spoken: Sequence[Spoken], clip: int, word: Word) -> int:
    for i in (clip, clip - 1, clip + 1):
        alike = 0 <= i < len(spoken) and normalise(spoken[i].text) == normalise(spoken[clip].text)
        if alike and _stands_in(spoken[i], word):
            return i
    return clip


def _stands_in(clip: Spoken, word: Word) -> bool:
    if word.start_s is None or word.end_s is None:
        return False
    return clip.start_s - OFF_S <= word.start_s and word.end_s <= clip.end_s + OFF_S


def _wer(pairs: Sequence[tuple[str, str]]) -> float | None:
    wer = corpus_wer(pairs)
    return None if wer is None else 100 * wer.wer


def _compare(rows: Mapping[str, dict[str, Any]], seconds: Mapping[str, Sequence[float]]) -> None:
    for name, peer in (("float32", "float32"), ("bfloat16", "int8"), ("bfloat16-all", "int8")):
        against = seconds.get(f"faster-whisper {peer}")
        for subject, row in rows.items():
            if against and row["engine"] == "das" and row["dtype"] == name:
                row["against"] = peer
                row["ratio"] = ratio(against, seconds[subject])
