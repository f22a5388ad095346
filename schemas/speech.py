"""Datasets of the speech and features stages."""

import pyarrow as pa

from schemas.fields import field, schema

SPEECH = schema(
    "speech",
    2,
    [
        field("id", pa.string(), "Id of the text."),
        field("domain", pa.string(), "Domain of the text."),
        field("text", pa.string(), "What is spoken, in written form."),
        field("split", pa.string(), "Use of the utterance.", values=("train", "test")),
        field("spoken", pa.string(), "The text as the voice was given it, numbers written out."),
        field("audio", pa.binary(), "Mono 16-bit FLAC file."),
        field("sample_rate_hz", pa.int32(), "Sampling rate.", unit="Hz", min=16000, max=16000),
        field("num_samples", pa.int32(), "Length.", unit="samples", min=1),
        field(
            "loudness",
            pa.float32(),
            "Integrated loudness (ITU-R BS.1770); null below 0.4 s.",
            unit="LUFS",
            nullable=True,
        ),
        field(
            "cer",
            pa.float32(),
            "Character error rate of the base's transcript; null where it was not asked.",
            nullable=True,
            min=0,
        ),
        field("engine", pa.string(), "TTS engine and its version."),
        field("voice", pa.string(), "Voice, speaker and pace."),
    ],
)

FEATURES = schema(
    "features",
    1,
    [
        field("id", pa.string(), "Id of the utterance."),
        field("domain", pa.string(), "Domain of the utterance."),
        field(
            "labels",
            pa.list_(pa.int32()),
            "Prompt, text and end-of-text tokens of the base model's tokenizer.",
            unit="tokens",
            min=0,
        ),
        field("prompt_length", pa.int32(), "Tokens of the prompt.", unit="tokens", min=1),
        field(
            "encoded",
            pa.binary(),
            "Encoder output (spectrograms: log-mel) of the whole 30 s window, float16, C order "
            "[frames, width].",
        ),
        field("frames", pa.int32(), "Frames of the window.", unit="frames", min=1),
        field("width", pa.int32(), "Encoder's hidden size, or mel bins.", min=1),
    ],
)
