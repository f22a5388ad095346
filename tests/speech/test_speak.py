import json
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pytest

from das_lib.config import Tts
from das_lib.config.data import Voice
from das_lib.errors import DasError
from das_lib.models import resolve_voice
from das_lib.speech.audio import SAMPLE_RATE, read_audio
from das_lib.speech.speak import SpeakTexts
from das_lib.speech.tts import CoquiSynthesizer, KokoroSynthesizer, PiperSynthesizer
from schemas.speech import SPEECH
from schemas.validate import validate


def texts(*lines):
    return pa.Table.from_pylist(
        [{"id": str(i), "domain": "d", "text": t, "split": "train"} for i, t in enumerate(lines)]
    )


def test_a_block_is_spoken_and_what_cannot_be_is_rejected():
    outcome = SpeakTexts(Tts(engine="fake"))(texts("Who won the cup?", "... !", "", "play jazz"))
    validate(outcome.rows, SPEECH)
    assert outcome.rows["id"].to_pylist() == ["0", "3"]
    assert [r.reason for r in outcome.rejects] == ["nothing-to-speak"] * 2
    samples = outcome.rows["num_samples"].to_pylist()
    clips = [read_audio(audio) for audio in outcome.rows["audio"].to_pylist()]
    assert [len(clip) for clip in clips] == samples
    assert outcome.amount == pytest.approx(sum(samples) / SAMPLE_RATE)


def test_a_failing_engine_rejects_the_text_and_goes_on():
    speak = SpeakTexts(Tts(engine="fake"))
    ((_, synthesizer),) = speak._cast
    voice = synthesizer.speak

    def fails_once(text):
        if text == "bad one":
            raise RuntimeError("no phonemes")
        return voice(text)

    synthesizer.speak = fails_once
    outcome = speak(texts("good one", "bad one"))
    assert outcome.rows.num_rows == 1
    (reject,) = outcome.rejects
    assert (reject.reason, "no phonemes" in reject.detail) == ("tts-failed", True)


def test_several_voices_speak_each_as_often_and_the_same_in_any_order():
    voices = (Voice(voice="a", speed=0.8), Voice(voice="b", speaker="x"), Voice(voice="c"))
    speak = SpeakTexts(Tts(engine="fake", voices=voices))
    table = texts(*(f"say number {n} please" for n in range(60)))
    rows = speak(table).rows.to_pylist()
    counts = {v: sum(row["voice"] == v for row in rows) for v in ("a@0.8", "b/x", "c")}
    assert sum(counts.values()) == 60
    assert min(counts.values()) > 10
    again = speak(table.take(list(reversed(range(60))))).rows.to_pylist()
    assert sorted(again, key=lambda r: int(r["id"])) == rows


def test_numbers_are_written_out_for_the_voice_alone():
    tts = Tts(engine="fake")
    (row,) = SpeakTexts(tts, "en")(texts("Is it 5°C in Oslo?")).rows.to_pylist()
    assert row["text"] == "Is it 5°C in Oslo?"
    assert row["spoken"] == "Is it five degrees Celsius in Oslo?"
    assert row["num_samples"] == round(16000 * (len(row["spoken"]) * 0.06 + 0.05))
    for other in (
        SpeakTexts(tts),
        SpeakTexts(tts, "de"),
        SpeakTexts(tts.model_copy(update={"normalise": False}), "en"),
    ):
        assert other(texts("Is it 5°C in Oslo?")).rows["spoken"].to_pylist() == [row["text"]]


def test_what_the_base_hears_otherwise_is_misheard(monkeypatch, tmp_path):
    from das_lib.speech.round_trip import RoundTrip, character_error_rate
    from das_lib.testing import tiny_whisper

    assert character_error_rate("who won", "who won") == 0
    assert character_error_rate("who won", "who one") == pytest.approx(2 / 7)
    assert (character_error_rate("", "x"), character_error_rate("", "")) == (1, 0)
    base = tiny_whisper(tmp_path / "tiny", chunk_s=30)  # it hears nothing right
    for bound, kept in ((0.5, 0), (1e9, 2)):
        trip = RoundTrip(base, "en", bound)
        outcome = SpeakTexts(Tts(engine="fake"), "en", trip)(texts("Who won the cup?", "play jazz"))
        assert outcome.rows.num_rows == kept
        assert [r.reason for r in outcome.rejects] == ["misheard"] * (2 - kept)
        validate(outcome.rows, SPEECH)
        assert all(rate > 0.5 for rate in outcome.rows["cer"].to_pylist())


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_trained_voices_are_understood_by_the_base():
    """Coqui, Piper and Kokoro, heard by whisper-base: a WER below 20 %."""
    from das_lib.adml import Fixed, Transcriber
    from das_lib.evaluation.wer import corpus_wer
    from das_lib.models import resolve_model

    given = [
        "What's the current temperature outside right now?",
        "Who won the football match between Spain and Italy last night?",
        "Play the first song of the album again, please.",
        "Is it going to rain in the mountains on Sunday?",
        "How many goals did the team score in 2019?",
    ]
    joe = "en_US-joe-medium"
    casts = {
        "piper": (Voice(voice=joe),),
        "coqui": (Voice(voice=str(resolve_voice(joe))),),
        "kokoro": tuple(Voice(voice="kokoro-82m-int8", speaker=s) for s in ("jf_alpha", "jm_kumo")),
    }
    base = Transcriber.from_pretrained(resolve_model("openai/whisper-base"), language="en")
    for engine, voices in casts.items():
        outcome = SpeakTexts(Tts(engine=engine, voices=voices), "en")(texts(*given))
        assert outcome.rejects == [], engine
        rows = outcome.rows.to_pylist()
        heard = base.transcribe([read_audio(row["audio"]) for row in rows], {"base": Fixed(0)})
        found = corpus_wer((r["text"], h["base"].text) for r, h in zip(rows, heard, strict=True))
        assert found is not None
        assert found.wer < 0.2, (engine, [h["base"].text for h in heard])
        assert all(-40 < row["loudness"] < -10 for row in rows), engine


@pytest.mark.slow
def test_a_voice_says_a_text_the_same_whatever_it_said_before():
    voice = str(resolve_voice("en_US-joe-medium"))
    for make in (PiperSynthesizer, CoquiSynthesizer):
        one, other = make(Voice(voice=voice)), make(Voice(voice=voice))
        other.speak("Something else. And again.")
        first = one.speak("Who sang the song? It is old.")
        assert np.array_equal(first, other.speak("Who sang the song? It is old."))
        assert np.array_equal(first, one.speak("Who sang the song? It is old."))


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["piper", "coqui"])
def test_a_real_voice_speaks_at_16_khz(engine):
    voice = "en_US-joe-medium" if engine == "piper" else str(resolve_voice("en_US-joe-medium"))
    outcome = SpeakTexts(Tts(engine=engine, voice=voice))(
        texts("What's the current temperature outside right now?", "Play it again. And again.")
    )
    assert outcome.rejects == []
    for row in outcome.rows.to_pylist():
        audio = read_audio(row["audio"])
        assert 1.0 < len(audio) / SAMPLE_RATE < 6.0
        assert np.sqrt(np.mean(audio**2)) > 0.01
        assert row["engine"].startswith(engine)


# In a process of its own: threads of what other tests started may come and go meanwhile.
THREADS = """
import json, os, sys
from das_lib.config import Tts
from das_lib.speech.speak import SpeakTexts

for num_cpus in (1, 3):
    tts = Tts.model_validate(json.loads(sys.argv[1]) | {"pool": {"num_cpus": num_cpus}})
    SpeakTexts(tts)  # libraries may start threads of their own at first
    before = len(os.listdir("/proc/self/task"))
    voice = SpeakTexts(tts)
    print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="counts threads in /proc")
@pytest.mark.parametrize(
    ("engine", "voice"),
    [
        ("piper", {}),
        ("coqui", {"voice": "en_US-joe-medium"}),
        ("kokoro", {"voice": "kokoro-82m-int8", "speaker": "jf_alpha"}),
    ],
)
def test_a_voice_computes_in_the_threads_of_its_worker(engine, voice):
    if engine == "coqui":
        voice = {"voice": str(resolve_voice(voice["voice"]))}
    tts = {"engine": engine, **voice}
    command = [sys.executable, "-c", THREADS, json.dumps(tts)]
    made = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
    assert made.split()[-2:] == ["0", "2"]
    assert SpeakTexts(Tts.model_validate(tts))(texts("Play it again.")).rejects == []


@pytest.mark.slow
def test_speed_shortens_speech_and_an_unknown_speaker_is_refused():
    text = "What's the current temperature outside right now?"
    slow, fast = (len(PiperSynthesizer(Tts(speed=s)).speak(text)) for s in (1.0, 1.6))
    assert fast < 0.85 * slow
    with pytest.raises(DasError, match="no speaker 'bob'"):
        PiperSynthesizer(Tts(speaker="bob"))
    with pytest.raises(
        DasError, match=r"tts\.speaker=None: kokoro-82m-int8 has the speakers jf_alpha"
    ):
        KokoroSynthesizer(Voice(voice="kokoro-82m-int8"))


@pytest.mark.slow
def test_coqui_names_the_remedy_for_an_unknown_model():
    with pytest.raises(DasError, match=r"tts\.voice: Coqui cannot load 'no/such/model/x'"):
        CoquiSynthesizer(Tts(engine="coqui", voice="no/such/model/x"))
