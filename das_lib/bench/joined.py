"""Clips joined to long recordings, and what of each was heard in them."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import jiwer
import numpy as np

from das_lib.bulk.hear import Heard
from das_lib.bulk.transcript import Word
from das_lib.evaluation.bootstrap import paired_change
from das_lib.evaluation.wer import normalise
from das_lib.speech.audio import SAMPLE_RATE, Audio

PAUSES_S = (0.3, 1.5, 3.0)
NOISE = 0.002  # root mean square of every other pause, -54 dBFS
OFF_S = 0.5  # a word further from its clip is out of place


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


def above_clips(
    made: Sequence[Recording], texts: Sequence[str], alone: Sequence[int | None]
) -> dict[str, float]:
    """WER in recordings less that of their clips by themselves, in points, and its 95 % interval.

    Each window is another context, and changes words by chance: a paired bootstrap over the clips
    says how much of the difference that may be.

    Args:
        made: The recordings.
        texts: What was heard in each.
        alone: Word errors in each clip by itself, in the order they are spoken in.

    Returns:
        ``above_clips`` with its ``_low`` and ``_high``; nothing where the clips have no error.
    """
    errors = [n for one, text in zip(made, texts, strict=True) for n in clip_errors(one, text)]
    pairs = [(a, n) for a, n in zip(alone, errors, strict=True) if a is not None]
    spoken = (one for recording in made for one in recording.spoken)
    counted = (one.text for one, a in zip(spoken, alone, strict=True) if a is not None)
    words = sum(len(normalise(text).split()) for text in counted)
    change = paired_change([a for a, _ in pairs], [n for _, n in pairs])
    if change is None:
        return {}
    clips_wer = 100 * sum(a for a, _ in pairs) / words
    return {
        "above_clips": clips_wer * change.relative,
        "above_clips_low": clips_wer * change.low,
        "above_clips_high": clips_wer * change.high,
    }


def clip_errors(recording: Recording, text: str) -> list[int]:
    """Word errors in each clip; what was heard between two words counts for the second's clip."""
    said, clips = _said(recording.spoken)
    errors = [0] * len(recording.spoken)
    for chunk in jiwer.process_words(said, normalise(text)).alignments[0]:
        if chunk.type == "insert":
            clip = clips[min(chunk.ref_start_idx, len(clips) - 1)]
            errors[clip] += chunk.hyp_end_idx - chunk.hyp_start_idx
        elif chunk.type != "equal":
            for word in range(chunk.ref_start_idx, chunk.ref_end_idx):
                errors[clips[word]] += 1
    return errors


def placement(spoken: Sequence[Spoken], heard: Heard) -> dict[str, float]:
    """Clips of which nothing was heard, and the share of words that stand within 0.5 s of theirs.

    Words are those of the reference that the transcript has at the same place in the alignment. A
    clip is lost if it has none of them and no other word stands in its place either: what was
    misheard is not lost, and the error rate counts it. Of two clips in a row that say the same, a
    word is of the one in which it stands: the alignment cannot tell them apart.
    """
    said, clips = _said(spoken)
    words = [word for word in heard.transcript.words for _ in normalise(word.text).split()]
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


def _said(spoken: Sequence[Spoken]) -> tuple[str, list[int]]:
    """The normalised words of all clips, and the clip of each."""
    texts = [normalise(s.text) for s in spoken]
    return " ".join(texts), [i for i, text in enumerate(texts) for _ in text.split()]


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
