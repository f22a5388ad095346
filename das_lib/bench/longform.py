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
from functools import partial
from pathlib import Path
from typing import Any

from das_lib.adml import Adml, Fixed, Transcriber
from das_lib.adml.linear import Precision
from das_lib.bench.faster_whisper import FasterWhisper
from das_lib.bench.joined import Recording, above_clips, join, placement
from das_lib.bench.timing import measure, publish, ratio, spread
from das_lib.bulk.hear import Heard, HearSettings
from das_lib.bulk.local import hear_locally
from das_lib.bulk.vad import Vad
from das_lib.bulk.windows import Windows, WindowSettings
from das_lib.evaluation.wer import corpus_wer, utterance_errors
from das_lib.speech.audio import SAMPLE_RATE, Audio

BLOCK = 30 * SAMPLE_RATE


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
    alone: dict[str, list[int | None]] = {}
    """Word errors in each clip by itself, in the order they are spoken in; None: refused."""
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
        answers = transcriber.transcribe([clips[i] for i in used], {"das": strategy})
        found = {
            clip: answer["das"].text
            for clip, answer in zip(used, answers, strict=True)
            if isinstance(answer, dict)
        }
        pairs = [(one.text, found[one.clip]) for one in spoken if one.clip in found]
        errors = iter(utterance_errors(pairs))
        alone[name] = [next(errors) if one.clip in found else None for one in spoken]
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
            said = [one.transcript.text if isinstance(one, Heard) else one for one in heard[name]]
            row["wer"] = _wer([(one.text, text) for one, text in zip(made, said, strict=True)])
            if name in alone:
                row |= above_clips(made, said, alone[name])
    _compare(rows, seconds)
    notes = [
        "ratio: this row's speed over faster-whisper's.",
        "above_clips: WER in recordings less that of the clips, and its 95 % interval.",
    ]
    publish("longform", list(rows.values()), notes)


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
