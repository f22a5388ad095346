"""Datasets of bulk transcription: what was listed, what was heard, what was written beside it."""

import pyarrow as pa

from schemas.fields import field, schema

RECORDINGS = schema(
    "recordings",
    1,
    [
        field("id", pa.string(), "Id of the recording, unique in the corpus."),
        field("url", pa.string(), "File that holds it."),
        field(
            "byte_offset",
            pa.int64(),
            "Where it begins in the file; null: it is the file.",
            unit="bytes",
            nullable=True,
            min=0,
        ),
        field(
            "byte_length",
            pa.int64(),
            "Its length in the file; null: it is the file.",
            unit="bytes",
            nullable=True,
            min=0,
        ),
        field("row", pa.int64(), "Row of a Parquet file that holds it.", nullable=True, min=0),
        field("column", pa.string(), "Parquet column that holds it.", nullable=True),
        field("start_s", pa.float64(), "Where the part to transcribe begins.", unit="s", min=0),
        field(
            "duration_s",
            pa.float64(),
            "Length of that part; null: to the end.",
            unit="s",
            nullable=True,
            min=0,
        ),
        field("channel", pa.int32(), "Channel to hear; null: mean of all.", nullable=True, min=0),
        field("size", pa.int64(), "Bytes to read, where known.", unit="bytes", nullable=True),
        field("extra", pa.string(), "Other columns of the manifest, as JSON.", nullable=True),
    ],
)

WORD = pa.struct(
    [
        pa.field("text", pa.string(), nullable=False),
        pa.field("adapter", pa.string(), nullable=False),
        pa.field("confidence", pa.float32(), nullable=False),
        pa.field("start_s", pa.float64()),
        pa.field("end_s", pa.float64()),
    ]
)

SEGMENT = pa.struct(
    [
        pa.field("start_s", pa.float64(), nullable=False),
        pa.field("end_s", pa.float64(), nullable=False),
        pa.field("text", pa.string(), nullable=False),
        pa.field("avg_logprob", pa.float32(), nullable=False),
        pa.field("compression_ratio", pa.float32(), nullable=False),
        pa.field("no_speech_prob", pa.float32()),
        pa.field("temperature", pa.float32(), nullable=False),
        pa.field("words", pa.list_(WORD), nullable=False),
    ]
)

BULK_TRANSCRIPTS = schema(
    "bulk-transcripts",
    1,
    [
        field("id", pa.string(), "Id of the recording."),
        field("text", pa.string(), "Transcript; empty where nobody speaks."),
        field("language", pa.string(), "Language of the transcript."),
        field("duration_s", pa.float64(), "Length of what was asked for.", unit="s", min=0),
        field("speech_s", pa.float64(), "Length of what was decoded.", unit="s", min=0),
        field("segments", pa.list_(SEGMENT), "Stretches of speech, in order, with their words."),
        field("model", pa.string(), "Model that transcribed."),
        field("adapters", pa.list_(pa.string()), "Adapters that took part, as name@hash."),
        field("guards", pa.list_(pa.string()), "What was said of its windows, see docs."),
        field("windows", pa.int32(), "Decodes that it took.", min=0),
        field("batches", pa.float32(), "Their share in the batches they were in.", min=0),
        field("seconds", pa.float64(), "From reading to the last answer.", unit="s", min=0),
    ],
)

EXPORTS = schema(
    "exports",
    1,
    [
        field("id", pa.string(), "Id of the recording."),
        field("file", pa.string(), "File that holds its transcript, below the format's folder."),
    ],
)
