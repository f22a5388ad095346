"""The features stage: what the frozen encoder hears in each utterance, computed once.

Decoder-only adapters leave the encoder as it is, so every epoch, domain and method reads the same
encoder output. It is kept for the whole window: cutting it to the audio's length breaks decoding.
Methods that train the encoder read log-mel spectrograms instead, in rows of the same form.

Where the labels are written in the base's style (``train.style``), the base transcribes each
utterance here, from the encoder output that is there anyway.
"""

import io
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import soundfile
import torch

from das_lib.adml import AdapterBank, Engine, Fixed
from das_lib.adml.adapter import BaseShape
from das_lib.adml.checkpoint import read_checkpoint
from das_lib.adml.encoder import Encoder
from das_lib.errors import Reject
from das_lib.rows import Outcome
from das_lib.speech.augment import Augmenter
from das_lib.train.base import ENCODER_FRAMES_PER_SECOND, is_multilingual
from das_lib.train.labels import LabelEncoder, Labels
from das_lib.train.style import in_base_style
from schemas.speech import FEATURES

logger = logging.getLogger(__name__)

SAMPLE_RATE_HZ = 16000


@dataclass(frozen=True, slots=True)
class _Clip:
    row: int
    samples: np.ndarray  # [samples] float32


@dataclass(frozen=True, slots=True)
class _Heard:
    language: int | None  # token; None for English-only models
    transcript: str | None = None  # the base's, where its style is wanted
    english: bool = True


class EncodeFeatures:
    """A `Process` from SPEECH rows to FEATURES rows; the amount is seconds of audio."""

    def __init__(
        self,
        model_folder: Path,
        language: str | None,
        *,
        threads: int | None = None,
        device: str = "cpu",
        batch_utterances: int = 16,
        log_mel: bool = False,
        masks: Augmenter | None = None,
        base_style: bool = False,
    ) -> None:
        """Load the encoder, and the decoder too where the base has to speak.

        Args:
            model_folder: The base.
            language: A code such as ``en``, or None: the base detects it.
            threads: Of computation; torch's own choice by default.
            device: Where the encoder runs.
            batch_utterances: Encoded at once.
            log_mel: Keep the log-mel spectrogram, for methods that train the encoder, in place of
                what the encoder makes of it.
            masks: Blanks parts of each log-mel spectrogram.
            base_style: Write the labels as the base writes (see `style`).

        Raises:
            ModelError: the folder holds no Whisper model with its tokenizer.
            DasError: the model does not know ``language``.
        """
        from transformers import WhisperFeatureExtractor

        if threads is not None:
            torch.set_num_threads(threads)
        model = read_checkpoint(model_folder)
        config = model.config
        multilingual = is_multilingual(model.generation, config["vocab_size"])
        self._labels = LabelEncoder(
            model_folder, multilingual=multilingual, max_tokens=config["max_target_positions"]
        )
        self._language = (
            self._labels.language_id(language) if multilingual and language is not None else None
        )
        self._base_style = base_style
        self._base = None
        if base_style or (multilingual and language is None):
            bank = AdapterBank(BaseShape.of(config))
            self._base = Engine(
                model, bank, device=device, language=language if multilingual else None
            )
            self._encoder = self._base.encoder
        else:
            self._encoder = Encoder(model, precision="float32", device=torch.device(device))
        self._window_s = config["max_source_positions"] // ENCODER_FRAMES_PER_SECOND  # 30
        self._extractor = WhisperFeatureExtractor(
            feature_size=config["num_mel_bins"], chunk_length=self._window_s
        )
        self._batch_utterances, self._keep_log_mel = batch_utterances, log_mel
        self._masks = masks

    def __call__(self, table: pa.Table) -> Outcome:
        """Encode a block of rows; each becomes a FEATURES row or a rejection."""
        ids, texts, domains = (table[name].to_pylist() for name in ("id", "text", "domain"))
        clips, rejects, seconds = [], [], 0.0
        for row, audio in enumerate(table["audio"].to_pylist()):
            clip = self._decode(row, ids[row], audio)
            if isinstance(clip, Reject):
                rejects.append(clip)
                continue
            # Texts are checked before the encoder spends a second on their audio.
            labels = self._labels.encode(ids[row], texts[row], self._language)
            if isinstance(labels, Reject):
                rejects.append(labels)
            else:
                clips.append(clip)
        rows = []
        for start in range(0, len(clips), self._batch_utterances):
            batch = clips[start : start + self._batch_utterances]
            names = [ids[clip.row] for clip in batch]
            encoded_BSD, heard = self._encode([clip.samples for clip in batch], names)
            for clip, encoded_SD, said in zip(batch, encoded_BSD, heard, strict=True):
                labels = self._label(ids[clip.row], texts[clip.row], said)
                if isinstance(labels, Reject):  # longer: the prompt has the language now
                    rejects.append(labels)
                    continue
                rows.append(_row(ids[clip.row], domains[clip.row], labels, encoded_SD))
                seconds += len(clip.samples) / SAMPLE_RATE_HZ
        return Outcome(pa.Table.from_pylist(rows, schema=FEATURES), rejects, seconds)

    def log_mel(self, clips: list[np.ndarray]) -> torch.Tensor:
        """Log-mel spectrograms of 16 kHz clips, padded to the window. [B, F, T]."""
        options = {"sampling_rate": SAMPLE_RATE_HZ, "return_tensors": "pt"}
        return self._extractor(clips, **options).input_features

    def _decode(self, row: int, row_id: str, audio: bytes) -> _Clip | Reject:
        try:
            samples, rate_hz = soundfile.read(io.BytesIO(audio), dtype="float32")
        except (soundfile.SoundFileError, TypeError) as error:
            return Reject(row_id, "not-audio", str(error))
        if rate_hz != SAMPLE_RATE_HZ or samples.ndim != 1 or not len(samples):
            return Reject(
                row_id,
                "not-audio",
                f"expected mono at {SAMPLE_RATE_HZ} Hz, found {samples.shape} at {rate_hz} Hz",
            )
        if len(samples) > self._window_s * SAMPLE_RATE_HZ:
            length_s = len(samples) / SAMPLE_RATE_HZ
            return Reject(row_id, "too-long-audio", f"{length_s:.1f} s > {self._window_s} s")
        return _Clip(row, samples)

    def _label(self, row_id: str, text: str, said: _Heard) -> Labels | Reject:
        """The text's tokens, in the base's style where that is wanted and not too long."""
        if said.transcript is not None:
            styled = in_base_style(text, said.transcript, english=said.english)
            labels = self._labels.encode(row_id, styled, said.language)
            if isinstance(labels, Labels):
                return labels
        return self._labels.encode(row_id, text, said.language)

    @torch.inference_mode()
    def _encode(self, clips: list[np.ndarray], names: list[str]) -> tuple[np.ndarray, list[_Heard]]:
        """What is kept of each clip, [B, S, D] float16, and what the base hears in it."""
        mel_BFT = self.log_mel(clips)
        if self._masks is not None:
            for mel_FT, name, clip in zip(mel_BFT.numpy(), names, clips, strict=True):
                self._masks.mask(mel_FT, name, len(clip) / SAMPLE_RATE_HZ)
        heard = [_Heard(self._language)] * len(clips)
        if self._keep_log_mel and self._base is None:
            return mel_BFT.mT.to(torch.float16).numpy(), heard
        encoded_BSD = self._encoder(mel_BFT)
        if self._base is not None:
            heard = self._heard(self._base, encoded_BSD)
        kept = mel_BFT.mT if self._keep_log_mel else encoded_BSD
        return kept.to(torch.float16).cpu().numpy(), heard

    def _heard(self, base: Engine, h_BSD: torch.Tensor) -> list[_Heard]:
        """The language and, for the style, the transcript of each utterance."""
        memory = base.memory(h_BSD)
        codes = base.languages(memory)
        multilingual = self._labels.multilingual
        tokens = [self._labels.language_id(code) if multilingual else None for code in codes]
        if not self._base_style:
            return [_Heard(token) for token in tokens]
        traces = base.decode(memory, codes, Fixed(0))
        return [
            _Heard(token, self._labels.text(trace.tokens), code == "en")
            for token, trace, code in zip(tokens, traces, codes, strict=True)
        ]


def _row(row_id: str, domain: str, labels: Labels, encoded_SD: np.ndarray) -> dict[str, object]:
    frames, width = encoded_SD.shape
    return {
        "id": row_id,
        "domain": domain,
        "labels": labels.tokens,
        "prompt_length": labels.prompt_length,
        "encoded": encoded_SD.tobytes(),
        "frames": frames,
        "width": width,
    }
