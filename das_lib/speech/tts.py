"""TTS engines behind one small protocol."""

import json
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from das_lib.config.data import Voice
from das_lib.errors import DasError, ModelError
from das_lib.ids import row_id
from das_lib.models import resolve_kokoro, resolve_voice
from das_lib.models.onnx import thread_options
from das_lib.models.resolve import KOKORO_VOICES
from das_lib.speech.audio import SAMPLE_RATE, Audio, resample
from das_lib.speech.noise import SeededSession


class Synthesizer(Protocol):
    """A voice."""

    engine: str
    """Engine and version, e.g. ``piper 1.8.0``."""

    def speak(self, text: str) -> Audio:
        """Mono 16 kHz recording of the text, shape [samples]."""
        ...


class PiperSynthesizer:
    """A Piper voice: VITS in ONNX with its own espeak-ng; the embedded default."""

    def __init__(self, voice: Voice, threads: int = 1) -> None:
        from piper import PiperVoice, SynthesisConfig
        from piper.config import PiperConfig

        self.engine = f"piper {version('piper-tts')}"
        path = resolve_voice(voice.voice)
        self._session: Any = SeededSession(path, threads)
        config = PiperConfig.from_dict(json.loads(Path(f"{path}.json").read_text("utf-8")))
        self.voice = PiperVoice(session=self._session, config=config)
        speakers = self.voice.config.speaker_id_map
        if voice.speaker is not None and voice.speaker not in speakers:
            raise DasError(
                f"tts.speaker: voice {voice.voice!r} has no speaker {voice.speaker!r}; "
                f"it has {', '.join(speakers) or 'a single one, leave it out'}"
            )
        self.settings = SynthesisConfig(
            speaker_id=None if voice.speaker is None else speakers[voice.speaker],
            length_scale=self.voice.config.length_scale / voice.speed,
        )

    def speak(self, text: str) -> Audio:
        """All sentences of the text in one recording."""
        self._session.seed(text)
        chunks = list(self.voice.synthesize(text, self.settings))
        if not chunks:
            return np.zeros(0, np.float32)
        audio = np.concatenate([chunk.audio_float_array for chunk in chunks])
        return resample(audio, chunks[0].sample_rate)


class CoquiSynthesizer:
    """Any model of the Coqui ``TTS`` package by name, or a VITS voice from an ``.onnx`` file.

    An ``.onnx`` file must have a Piper ``.onnx.json`` beside it, which says the phonemes' ids.
    """

    def __init__(self, voice: Voice, threads: int = 1) -> None:
        self.engine = f"coqui-tts {version('coqui-tts')}"
        self._say, self.rate_hz = (
            self._onnx(voice, threads) if voice.voice.endswith(".onnx") else self._by_name(voice)
        )

    def speak(self, text: str) -> Audio:
        """All sentences of the text in one recording."""
        return resample(np.asarray(self._say(text), dtype=np.float32), self.rate_hz)

    @staticmethod
    def _by_name(voice: Voice) -> tuple[Callable[[str], Any], int]:
        import torch
        from TTS.api import TTS

        try:
            model = TTS(model_name=voice.voice, progress_bar=False)
        except Exception as error:  # TTS raises whatever its downloader raises
            raise ModelError(
                f"tts.voice: Coqui cannot load {voice.voice!r} ({error}); give a name of "
                "`tts --list_models` where the network allows the download, or an .onnx file"
            ) from error
        if torch.cuda.is_available():
            model.to("cuda")
        # not every model knows a speed
        options: dict[str, Any] = {} if voice.speed == 1 else {"speed": voice.speed}

        def say(text: str) -> Any:
            torch.manual_seed(int(row_id(text), 16) >> 1)  # the same text, the same recording
            return model.tts(text, speaker=voice.speaker, **options)

        return say, int(model.synthesizer.output_sample_rate)  # type: ignore[union-attr]

    @staticmethod
    def _onnx(voice: Voice, threads: int) -> tuple[Callable[[str], Any], int]:
        from piper.config import PiperConfig
        from piper.phoneme_ids import phonemes_to_ids
        from piper.phonemize_espeak import EspeakPhonemizer
        from TTS.tts.configs.vits_config import VitsConfig
        from TTS.tts.models.vits import Vits

        config = PiperConfig.from_dict(json.loads(Path(f"{voice.voice}.json").read_text()))
        model = Vits(VitsConfig())
        model.onnx_sess = session = SeededSession(voice.voice, threads)  # type: ignore[assignment]
        model.length_scale = config.length_scale / voice.speed
        phonemizer = EspeakPhonemizer()

        def say(text: str) -> Any:
            session.seed(text)
            sentences = phonemizer.phonemize(config.espeak_voice, text)
            ids = [phonemes_to_ids(s, config.phoneme_id_map) for s in sentences if s]
            spoken = [model.inference_onnx(np.asarray([i], dtype=np.int64)) for i in ids]
            return np.concatenate([np.ravel(s) for s in spoken]) if spoken else np.zeros(0)

        return say, config.sample_rate


class KokoroSynthesizer:
    """Kokoro-82M: many speakers in one ONNX model, which draws no noise."""

    def __init__(self, voice: Voice, threads: int = 1) -> None:
        from kokoro_onnx import Kokoro
        from kokoro_onnx.session import resolve_providers
        from onnxruntime import InferenceSession

        self.engine = f"kokoro-onnx {version('kokoro-onnx')}"
        path = resolve_kokoro(voice.voice)
        session = InferenceSession(
            str(path), thread_options(threads), providers=resolve_providers()
        )
        self._kokoro = Kokoro.from_session(session, str(path.with_name(KOKORO_VOICES)))
        speakers = self._kokoro.get_voices()
        if voice.speaker not in speakers:
            raise DasError(
                f"tts.speaker={voice.speaker}: {voice.voice} has the speakers {', '.join(speakers)}"
            )
        self._speaker, self._speed = voice.speaker, voice.speed
        # The first letter of a speaker's name is its language; British English is b.
        self._language = "en-gb" if voice.speaker.startswith("b") else "en-us"

    def speak(self, text: str) -> Audio:
        """All sentences of the text in one recording."""
        samples, rate_hz = self._kokoro.create(
            text, voice=self._speaker, speed=self._speed, lang=self._language
        )
        return resample(samples, rate_hz)


class FakeSynthesizer:
    """A tone per character, for tests: deterministic, quick, and never silent."""

    engine = "fake 1"
    seconds_per_character = 0.06

    def __init__(self, voice: Voice, threads: int = 1) -> None:
        self.speed = voice.speed

    def speak(self, text: str) -> Audio:
        """60 ms a character, pitch by character, then a breath."""
        time = np.arange(int(SAMPLE_RATE * self.seconds_per_character / self.speed)) / SAMPLE_RATE
        tones = [np.sin(2 * np.pi * (200 + 20 * (ord(c) % 64)) * time) for c in text]
        breath = np.zeros(SAMPLE_RATE // 20)
        return (0.3 * np.concatenate([*tones, breath])).astype(np.float32)


ENGINES: dict[str, Callable[[Voice, int], Synthesizer]] = {
    "piper": PiperSynthesizer,
    "coqui": CoquiSynthesizer,
    "kokoro": KokoroSynthesizer,
    "fake": FakeSynthesizer,
}
"""Each is made of a voice and the number of threads that it may compute in."""
