"""TTS engines behind one small protocol, and the process that speaks a block of texts."""

import json
import re
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from das_lib.config.tree import Tts
from das_lib.errors import DasError, ModelError, Reject
from das_lib.models import resolve_voice
from das_lib.rows import Outcome
from das_lib.speech.audio import SAMPLE_RATE, Audio, resample, to_flac
from das_lib.speech.checks import check_speech
from schemas.speech import SPEECH

SPEAKABLE = re.compile(r"[^\W_]")


class Synthesizer(Protocol):
    """A voice."""

    engine: str
    """Engine and version, e.g. ``piper 1.8.0``."""

    def speak(self, text: str) -> Audio:
        """Mono 16 kHz recording of the text, shape [samples]."""
        ...


class PiperSynthesizer:
    """A Piper voice: VITS in ONNX with its own espeak-ng; the embedded default."""

    def __init__(self, tts: Tts) -> None:
        from piper import PiperVoice, SynthesisConfig

        self.engine = f"piper {version('piper-tts')}"
        self.voice = PiperVoice.load(resolve_voice(tts.voice))
        speakers = self.voice.config.speaker_id_map
        if tts.speaker is not None and tts.speaker not in speakers:
            raise DasError(
                f"tts.speaker: voice {tts.voice!r} has no speaker {tts.speaker!r}; "
                f"it has {', '.join(speakers) or 'a single one, leave it out'}"
            )
        self.settings = SynthesisConfig(
            speaker_id=None if tts.speaker is None else speakers[tts.speaker],
            length_scale=self.voice.config.length_scale / tts.speed,
        )

    def speak(self, text: str) -> Audio:
        """All sentences of the text in one recording."""
        chunks = list(self.voice.synthesize(text, self.settings))
        if not chunks:
            return np.zeros(0, np.float32)
        audio = np.concatenate([chunk.audio_float_array for chunk in chunks])
        return resample(audio, chunks[0].sample_rate)


class CoquiSynthesizer:
    """Any model of the Coqui ``TTS`` package by name, or a VITS voice from an ``.onnx`` file.

    An ``.onnx`` file must have a Piper ``.onnx.json`` beside it, which says the phonemes' ids.
    """

    def __init__(self, tts: Tts) -> None:
        self.engine = f"coqui-tts {version('coqui-tts')}"
        self._say, self.rate_hz = (
            self._onnx(tts) if tts.voice.endswith(".onnx") else self._by_name(tts)
        )

    def speak(self, text: str) -> Audio:
        """All sentences of the text in one recording."""
        return resample(np.asarray(self._say(text), dtype=np.float32), self.rate_hz)

    @staticmethod
    def _by_name(tts: Tts) -> tuple[Callable[[str], Any], int]:
        import torch
        from TTS.api import TTS

        try:
            model = TTS(model_name=tts.voice, progress_bar=False)
        except Exception as error:  # TTS raises whatever its downloader raises
            raise ModelError(
                f"tts.voice: Coqui cannot load {tts.voice!r} ({error}); give a name of "
                "`tts --list_models` where the network allows the download, or an .onnx file"
            ) from error
        if torch.cuda.is_available():
            model.to("cuda")
        # not every model knows a speed
        options: dict[str, Any] = {} if tts.speed == 1 else {"speed": tts.speed}

        def say(text: str) -> Any:
            return model.tts(text, speaker=tts.speaker, **options)

        return say, int(model.synthesizer.output_sample_rate)  # type: ignore[union-attr]

    @staticmethod
    def _onnx(tts: Tts) -> tuple[Callable[[str], Any], int]:
        from piper.config import PiperConfig
        from piper.phoneme_ids import phonemes_to_ids
        from piper.phonemize_espeak import EspeakPhonemizer
        from TTS.tts.configs.vits_config import VitsConfig
        from TTS.tts.models.vits import Vits

        config = PiperConfig.from_dict(json.loads(Path(f"{tts.voice}.json").read_text()))
        model = Vits(VitsConfig())
        model.load_onnx(tts.voice)
        model.length_scale = config.length_scale / tts.speed
        phonemizer = EspeakPhonemizer()

        def say(text: str) -> Any:
            sentences = phonemizer.phonemize(config.espeak_voice, text)
            ids = [phonemes_to_ids(s, config.phoneme_id_map) for s in sentences if s]
            spoken = [model.inference_onnx(np.asarray([i], dtype=np.int64)) for i in ids]
            return np.concatenate([np.ravel(s) for s in spoken]) if spoken else np.zeros(0)

        return say, config.sample_rate


class FakeSynthesizer:
    """A tone per character, for tests: deterministic, quick, and never silent."""

    engine = "fake 1"
    seconds_per_character = 0.06

    def __init__(self, tts: Tts) -> None:
        self.speed = tts.speed

    def speak(self, text: str) -> Audio:
        """60 ms a character, pitch by character."""
        time = np.arange(int(SAMPLE_RATE * self.seconds_per_character / self.speed)) / SAMPLE_RATE
        tones = [np.sin(2 * np.pi * (200 + 20 * (ord(c) % 64)) * time) for c in text]
        return (0.3 * np.concatenate(tones)).astype(np.float32)


ENGINES: dict[str, Callable[[Tts], Synthesizer]] = {
    "piper": PiperSynthesizer,
    "coqui": CoquiSynthesizer,
    "fake": FakeSynthesizer,
}


class SpeakTexts:
    """Process: rows of TEXTS to rows of SPEECH; ``amount`` is seconds of audio.

    A text without a letter or digit is rejected as ``nothing-to-speak``, an engine's failure as
    ``tts-failed``, a doubtful recording with the reason of `check_speech`.
    """

    def __init__(self, tts: Tts) -> None:
        self.tts = tts
        self.synthesizer = ENGINES[tts.engine](tts)

    def __call__(self, texts: pa.Table) -> Outcome:
        """Speak a block."""
        rows: list[dict[str, Any]] = []
        rejects: list[Reject] = []
        for row in texts.to_pylist():
            result = self._speak(row)
            if isinstance(result, Reject):
                rejects.append(result)
            else:
                rows.append(result)
        samples = sum(row["num_samples"] for row in rows)
        return Outcome(pa.Table.from_pylist(rows, schema=SPEECH), rejects, samples / SAMPLE_RATE)

    def _speak(self, row: dict[str, Any]) -> dict[str, Any] | Reject:
        text = row["text"]
        if not SPEAKABLE.search(text):
            return Reject(row["id"], "nothing-to-speak", repr(text))
        try:
            audio = self.synthesizer.speak(text)
        except Exception as error:  # an engine may fail in any way on one text
            return Reject(row["id"], "tts-failed", f"{type(error).__name__}: {error} on {text!r}")
        fault = check_speech(audio, text)
        if fault:
            return Reject(row["id"], *fault)
        return {
            **{key: row[key] for key in ("id", "domain", "text", "split")},
            "audio": to_flac(audio),
            "sample_rate_hz": SAMPLE_RATE,
            "num_samples": len(audio),
            "engine": self.synthesizer.engine,
            "voice": self.tts.voice
            if not self.tts.speaker
            else f"{self.tts.voice}/{self.tts.speaker}",
        }
