"""Datasets of the transcription and evaluation stages."""

import pyarrow as pa

from schemas.fields import field, schema

CORPUS = schema(
    "corpus",
    1,
    [
        field("id", pa.string(), "Id of the recording, unique in its set."),
        field("test_set", pa.string(), "Set that the recording belongs to."),
        field("text", pa.string(), "Reference text; null where there is none.", nullable=True),
        field("audio", pa.binary(), "The recording, an audio file; null: see path.", nullable=True),
        field("path", pa.string(), "File of the recording; null: see audio.", nullable=True),
    ],
)

TRANSCRIPTS = schema(
    "transcripts",
    1,
    [
        field("id", pa.string(), "Id of the recording."),
        field("test_set", pa.string(), "Set that the recording belongs to."),
        field("system", pa.string(), "base, das, or <method>:<domain or multi>."),
        field("text", pa.string(), "Transcript."),
        field("reference", pa.string(), "Reference text; null: none.", nullable=True),
        field("num_samples", pa.int32(), "Length at 16 kHz.", unit="samples", min=1),
        field("language", pa.string(), "Language of the transcript."),
        field("tokens", pa.list_(pa.int32()), "Text tokens.", unit="tokens", min=0),
        field(
            "branches",
            pa.list_(pa.string()),
            "Branch that chose each token: base (of a fine-tuned model: itself) or a domain.",
        ),
        field(
            "rules",
            pa.list_(pa.string()),
            "Rule that fired for each token (max, min, base or fixed).",
        ),
        field("avg_logprob", pa.float32(), "Mean log-probability of the tokens.", max=0.0),
    ],
)

WER = schema(
    "wer",
    2,
    [
        field("id", pa.string(), "system/test_set."),
        field("system", pa.string(), "base, das, or <method>:<domain or multi>."),
        field("test_set", pa.string(), "Set that was transcribed."),
        field("wer", pa.float64(), "Corpus level: edits / words.", min=0),
        field("edits", pa.int64(), "Substitutions + deletions + insertions.", unit="words", min=0),
        field("words", pa.int64(), "Words of the references, normalised.", unit="words", min=1),
        field("utterances", pa.int64(), "Recordings measured.", min=1),
        field("substitutions", pa.int64(), "Words replaced.", unit="words", min=0),
        field("deletions", pa.int64(), "Words left out.", unit="words", min=0),
        field("insertions", pa.int64(), "Words added.", unit="words", min=0),
        field(
            "change",
            pa.float64(),
            "Of the WER relative to the base's; null: the base, or it has no error.",
            nullable=True,
        ),
        field("change_low", pa.float64(), "Lower end of its 95 % interval.", nullable=True),
        field("change_high", pa.float64(), "Upper end of its 95 % interval.", nullable=True),
    ],
)
