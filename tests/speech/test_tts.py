import numpy as np
import pyarrow as pa
import pytest

from das_lib.config import Tts
from das_lib.errors import DasError
from das_lib.models import resolve_voice
from das_lib.speech.audio import SAMPLE_RATE, read_audio
from das_lib.speech.tts import CoquiSynthesizer, PiperSynthesizer, SpeakTexts
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
    voice = speak.synthesizer.speak

    def fails_once(text):
        if text == "bad one":
            raise RuntimeError("no phonemes")
        return voice(text)

    speak.synthesizer.speak = fails_once
    outcome = speak(texts("good one", "bad one"))
    assert outcome.rows.num_rows == 1
    (reject,) = outcome.rejects
    assert (reject.reason, "no phonemes" in reject.detail) == ("tts-failed", True)


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


@pytest.mark.slow
def test_speed_shortens_speech_and_an_unknown_speaker_is_refused():
    text = "What's the current temperature outside right now?"
    slow, fast = (len(PiperSynthesizer(Tts(speed=s)).speak(text)) for s in (1.0, 1.6))
    assert fast < 0.85 * slow
    with pytest.raises(DasError, match="no speaker 'bob'"):
        PiperSynthesizer(Tts(speaker="bob"))


@pytest.mark.slow
def test_coqui_names_the_remedy_for_an_unknown_model():
    with pytest.raises(DasError, match=r"tts\.voice: Coqui cannot load 'no/such/model/x'"):
        CoquiSynthesizer(Tts(engine="coqui", voice="no/such/model/x"))
