"""What is kept of an adapter's training, beside its weights."""

import pyarrow as pa

from schemas.fields import field, schema

CURVE = schema(
    "curve",
    1,
    [
        field("epoch", pa.int32(), "Epochs done.", unit="epochs", min=1),
        field("step", pa.int32(), "Optimiser steps done.", unit="steps", min=1),
        field("loss", pa.float64(), "Mean training loss.", unit="nat per token"),
        field(
            "validation_loss",
            pa.float64(),
            "Mean loss on the utterances kept back, if any.",
            unit="nat per token",
            nullable=True,
        ),
        field("learning_rate", pa.float64(), "Of the epoch's last step.", min=0),
        field("seconds", pa.float64(), "Time of the epoch's steps.", unit="s", min=0),
        field("samples_per_s", pa.float64(), "Utterances trained on.", unit="1/s", min=0),
    ],
)
