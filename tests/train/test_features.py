import io

import numpy as np
import pyarrow as pa
import pytest
import soundfile
import torch
from train_tiny import ENGLISH, FRAMES, GERMAN, WIDTH
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

from das_lib.adml import Fixed, Transcriber
from das_lib.config.tree import Augment
from das_lib.errors import ModelError
from das_lib.speech.augment import Augmenter
from das_lib.testing import tiny_whisper
from das_lib.train import features
from das_lib.train.base import bytes_per_utterance
from das_lib.train.features import EncodeFeatures
from das_lib.train.labels import LabelEncoder
from schemas.speech import FEATURES, SPEECH
from schemas.validate import validate


def flac(samples: np.ndarray, rate_hz: int = 16000) -> bytes:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, rate_hz, format="FLAC", subtype="PCM_16")
    return buffer.getvalue()


def noise(num_samples: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(scale=0.1, size=num_samples).astype(np.float32)


def speech(*rows: tuple[str, str, bytes]) -> pa.Table:
    common = {"domain": "music", "split": "train", "sample_rate_hz": 16000, "num_samples": 1}
    return pa.Table.from_pylist(
        [
            {"id": i, "text": text, "audio": audio, "engine": "e", "voice": "v", **common}
            for i, text, audio in rows
        ],
        schema=SPEECH,
    )


def test_rows_hold_the_encoders_output_of_the_padded_window(base):
    clips = [noise(n, n) for n in (4000, 16000, 9000)]
    table = speech(*((f"r{i}", f"Text {i}", flac(clip)) for i, clip in enumerate(clips)))
    outcome = EncodeFeatures(base, "en", batch_utterances=2)(table)
    validate(outcome.rows, FEATURES)
    assert outcome.rejects == []
    assert outcome.amount == pytest.approx(29000 / 16000)
    model = WhisperForConditionalGeneration.from_pretrained(base).eval()
    extract = WhisperFeatureExtractor(feature_size=20, chunk_length=1)
    for row, clip in zip(outcome.rows.to_pylist(), clips, strict=True):
        samples = np.round(np.pad(clip, (0, 16000 - len(clip))) * 32768) / 32768
        mel = extract(samples, sampling_rate=16000, return_tensors="pt").input_features
        with torch.no_grad():
            expected = model.model.encoder(mel).last_hidden_state[0].numpy()
        stored = np.frombuffer(row["encoded"], np.float16).reshape(row["frames"], row["width"])
        assert stored.shape == (FRAMES, WIDTH)
        assert np.abs(stored - expected).max() < 5e-3
        assert row["labels"][1] == ENGLISH
        assert row["prompt_length"] == 4


def test_bad_rows_are_rejected_with_a_reason_and_the_rest_goes_on(base):
    good = flac(noise(8000))
    table = speech(
        ("broken", "Hi", b"no audio at all"),
        ("cut", "Hi", b""),
        ("long", "Hi", flac(noise(16001))),
        ("rate", "Hi", flac(noise(8000), 8000)),
        ("stereo", "Hi", flac(np.stack([noise(8000), noise(8000)], axis=1))),
        ("mute", "  ", good),
        ("words", "x" * 100, good),
        ("fine", "Hi", good),
    )
    outcome = EncodeFeatures(base, "en")(table)
    assert outcome.rows["id"].to_pylist() == ["fine"]
    assert {r.id: r.reason for r in outcome.rejects} == {
        "broken": "not-audio",
        "cut": "not-audio",
        "long": "too-long-audio",
        "rate": "not-audio",
        "stereo": "not-audio",
        "mute": "empty-text",
        "words": "too-long-text",
    }


def test_without_a_language_the_base_detects_it(base):
    outcome = EncodeFeatures(base, None)(speech(("a", "Hi", flac(noise(8000)))))
    model = WhisperForConditionalGeneration.from_pretrained(base).eval()
    samples = np.round(noise(8000) * 32768) / 32768
    mel = WhisperFeatureExtractor(feature_size=20, chunk_length=1)(
        samples, sampling_rate=16000, return_tensors="pt"
    ).input_features
    detected = int(model.detect_language(mel)[0])
    assert detected in (ENGLISH, GERMAN)
    assert outcome.rows["labels"].to_pylist()[0][1] == detected


def test_an_english_only_base_gets_the_short_prompt(tmp_path):
    encode = EncodeFeatures(tiny_whisper(tmp_path, multilingual=False), "en")
    row = encode(speech(("a", "Hi", flac(noise(8000))))).rows.to_pylist()[0]
    assert row["prompt_length"] == 2


def test_a_block_without_good_rows_gives_an_empty_table(base):
    outcome = EncodeFeatures(base, "en")(speech(("broken", "Hi", b"x")))
    assert outcome.rows.schema.equals(FEATURES)
    assert (outcome.rows.num_rows, outcome.amount) == (0, 0.0)


def test_a_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"name a Whisper model"):
        EncodeFeatures(tmp_path, "en")


def test_log_mel_is_kept_where_the_encoder_trains_and_masks_come_before_the_encoder(base):
    clip = noise(8000)
    table = speech(("a", "Hi", flac(clip)))
    (row,) = EncodeFeatures(base, "en", log_mel=True)(table).rows.to_pylist()
    stored = np.frombuffer(row["encoded"], np.float16).reshape(row["frames"], row["width"])
    extract = WhisperFeatureExtractor(feature_size=20, chunk_length=1)
    samples = np.round(np.pad(clip, (0, 8000)) * 32768) / 32768
    mel = extract(samples, sampling_rate=16000, return_tensors="np").input_features[0]
    assert np.abs(stored - mel.T).max() < 2e-3
    assert len(row["encoded"]) == bytes_per_utterance(base, log_mel=True)
    masks = Augmenter(Augment(part=0, time_masks=3, mel_masks=2, mel_mask_bins=5), 0)
    heard = {}
    for name, options in {"all": {}, "masked": {"masks": masks}}.items():
        (row,) = EncodeFeatures(base, "en", **options)(table).rows.to_pylist()
        assert len(row["encoded"]) == bytes_per_utterance(base, log_mel=False)
        heard[name] = row["encoded"]
    assert heard["all"] != heard["masked"]


def test_a_text_that_is_too_long_in_the_bases_style_alone_keeps_its_own(base, monkeypatch):
    monkeypatch.setattr(
        features, "in_base_style", lambda text, _heard, english: f"{text}{60 * '!'}"
    )
    outcome = EncodeFeatures(base, "en", base_style=True)(speech(("a", "Hi", flac(noise(8000)))))
    assert outcome.rejects == []
    labels = LabelEncoder(base, multilingual=True, max_tokens=64)
    (row,) = outcome.rows.to_pylist()
    assert row["labels"] == labels.encode("a", "Hi", ENGLISH).tokens


@pytest.mark.parametrize("options", [{}, {"log_mel": True}])
@pytest.mark.parametrize("language", ["en", "de", None])
def test_in_the_bases_style_the_label_is_made_of_the_text_and_the_bases_transcript(
    base, monkeypatch, language, options
):
    styled = []

    def style(text: str, transcript: str, *, english: bool) -> str:
        styled.append((text, transcript, english))
        return "other words"

    monkeypatch.setattr(features, "in_base_style", style)
    clip = np.round(noise(8000) * 32768).astype(np.float32) / 32768
    table = speech(("a", "Hi", flac(clip)))
    (row,) = EncodeFeatures(base, language, base_style=True, **options)(table).rows.to_pylist()
    transcriber = Transcriber.from_pretrained(base, language=language)
    (heard,) = transcriber.transcribe([clip], {"base": Fixed(0)})
    assert styled == [("Hi", heard["base"].text, heard["base"].language == "en")]
    labels = LabelEncoder(base, multilingual=True, max_tokens=448)
    spoken = labels.language_id(heard["base"].language)
    assert row["labels"] == labels.encode("a", "other words", spoken).tokens
