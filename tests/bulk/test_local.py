"""Long recordings with the real engine: as good as the clips one by one."""

import os
import threading
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from das_lib.adml import Fixed, Transcriber
from das_lib.bench.joined import join, placement
from das_lib.bench.longform import blocks
from das_lib.bench.material import read_utterances
from das_lib.bulk.hear import HearSettings
from das_lib.bulk.local import hear_locally
from das_lib.bulk.vad import Vad
from das_lib.errors import Reject
from das_lib.evaluation.wer import corpus_wer
from das_lib.models import resolve_model
from das_lib.speech.audio import SAMPLE_RATE, AudioError

SHARED = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data")) / "speech"
MINUTES = 3.0


class Listened:
    """A transcriber that says how loud each window is, and fails as it is told."""

    bank = SimpleNamespace(names=("base",))
    engine = SimpleNamespace(language="en")

    def __init__(self, failure=None, fails_at=9):
        self.failure, self.fails_at = failure, fails_at
        self.batches, self.threads = [], set()

    def transcribe(self, audio, strategies, *, batch_size, word_times, windows_s):
        assert len(audio) == len(word_times) == len(windows_s) <= batch_size
        self.threads.add(threading.current_thread())
        self.batches.append(len(audio))
        if self.failure is not None and len(self.batches) == self.fails_at:
            raise self.failure
        return [self.result(f"{clip.max():.1f}") for clip in audio]

    def result(self, text):
        word = {"text": text, "branch": 0, "confidence": 0.9, "start_s": 0.0, "end_s": 0.5}
        answer = {"text": text, "language": "en", "words": [word], "avg_logprob": -0.1}
        answer |= {"temperature": 0.0, "no_speech_prob": None, "batch": 1}
        if text == "0.7":
            return Reject("", "not-finite", "of no use")
        return {"heard": SimpleNamespace(columns=lambda batch: answer)}


def recording(*levels):
    """30 s at each level; without a VAD, a window each."""
    return iter([np.full(30 * SAMPLE_RATE, level, np.float32) for level in levels])


def hear(transcriber, **recordings):
    return hear_locally(recordings, transcriber, Fixed(0), batch_size=3)


def test_windows_of_all_recordings_share_batches_that_the_caller_s_thread_decodes():
    transcriber = Listened()
    one, two = hear(transcriber, a=recording(0.1, 0.2, 0.3, 0.4), b=recording(0.5, 0.6))
    assert one.transcript.text == "0.1 0.2 0.3 0.4"
    assert two.transcript.text == "0.5 0.6"
    assert transcriber.batches == [3, 3]
    assert transcriber.threads == {threading.current_thread()}


def test_when_all_is_read_the_last_batch_waits_for_no_more(monkeypatch):
    monkeypatch.setattr("das_lib.bulk.local.PATIENCE_S", 1e9)
    transcriber, recordings = Listened(), {"a": recording(0.1, 0.2, 0.3, 0.4), "b": recording(0.5)}
    listening = threading.Thread(target=hear, args=[transcriber], kwargs=recordings, daemon=True)
    listening.start()
    listening.join(60)
    assert not listening.is_alive()
    assert transcriber.batches == [3, 2]


def test_a_window_that_cannot_be_decoded_ends_the_call():
    with pytest.raises(AudioError, match="not-finite: of no use"):
        hear(Listened(), a=recording(0.1, 0.7), b=recording(*[0.2] * 20))


def test_what_is_padded_alike_shares_batches():
    class Skipping(Listened):
        """Hears a word a second, but for the last ten seconds of a window of 30."""

        numbers = [
            "one",
            "two",
            "three",
            "four",
            "five",
            "six",
            "seven",
            "eight",
            "nine",
            "ten",
        ] * 2

        def transcribe(self, audio, strategies, *, windows_s, **options):
            assert len({*windows_s}) == 1
            self.padded.append((windows_s[0], len(audio)))
            return super().transcribe(audio, strategies, windows_s=windows_s, **options)

        def result(self, text):
            words = [
                {"text": text, "branch": 0, "confidence": 0.9, "start_s": at, "end_s": at + 1}
                for at, text in enumerate(self.numbers[: 20 if self.padded[-1][0] is None else 10])
            ]
            said = " ".join(word["text"] for word in words)
            answer = {"text": said, "language": "en", "words": words}
            answer |= {"avg_logprob": -0.1, "temperature": 0.0, "no_speech_prob": None, "batch": 1}
            return {"heard": SimpleNamespace(columns=lambda batch: answer)}

    transcriber = Skipping()
    transcriber.padded = []
    (one,) = hear(transcriber, a=recording(0.1, 0.2, 0.3, 0.4, 0.5, 0.6))
    assert len(one.transcript.text.split()) == 6 * 30
    assert Counter(transcriber.padded) == {(None, 3): 2, (20.0, 3): 2}


@pytest.mark.parametrize("failure", [MemoryError("no room"), KeyboardInterrupt()])
@pytest.mark.parametrize("fails_at", [1, 3])
def test_what_the_engine_raises_is_raised_and_nobody_waits(failure, fails_at):
    before = threading.active_count()
    with pytest.raises(type(failure)):
        hear(Listened(failure, fails_at), a=recording(*[0.1] * 20), b=recording(*[0.2] * 20))
    assert threading.active_count() == before


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared speech in {SHARED}: DAS_SHARED_DATA")
def test_a_long_recording_is_heard_as_well_as_its_clips():
    manifest = SHARED / "librispeech_clean" / "manifest.jsonl"
    clips, texts = zip(*read_utterances(manifest, 30), strict=True)
    recording = join(clips, texts, MINUTES)
    spoken = recording.spoken
    transcriber = Transcriber.from_pretrained(resolve_model("openai/whisper-base"), language="en")
    alone = transcriber.transcribe([s.audio for s in spoken], {"base": Fixed(0)})
    one_by_one = corpus_wer([(s.text, r["base"].text) for s, r in zip(spoken, alone, strict=True)])
    settings = HearSettings(word_times=True)
    [heard] = hear_locally(
        {"long": blocks(recording.audio)},
        transcriber,
        Fixed(0),
        settings=settings,
        vad=Vad.from_package(),
    )
    long = corpus_wer([(recording.text, heard.transcript.text)])
    assert long.wer <= one_by_one.wer + 0.005
    found = placement(spoken, heard)
    assert found["lost_clips"] == 0
    assert found["words_in_place"] > 0.98
    assert heard.transcript.speech_s < heard.transcript.duration_s
