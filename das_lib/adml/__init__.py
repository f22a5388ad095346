"""Auto-regressive decoding with multiple LoRA adapters (ADML; paper, Algorithm 1).

Reading order: `select` (the rule), `engine` (the loop), `decoder` and `cross` (the layers),
`vocabulary` (logits to scores), `bank` (the adapters' algebra), `adapter` (reading PEFT folders),
`transcriber` (audio to text); beside the loop, `lookahead` and `beam`; the form for a GPU: `gpu`.
"""

from das_lib.adml.bank import AdapterBank
from das_lib.adml.engine import Engine
from das_lib.adml.fallback import Fallback
from das_lib.adml.result import Result, Word
from das_lib.adml.select import (
    Adml,
    Fixed,
    LowestEntropy,
    Majority,
    MaxConfidence,
    Mean,
    Rule,
    Strategy,
    named_strategy,
)
from das_lib.adml.transcriber import Transcriber

__all__ = [
    "AdapterBank",
    "Adml",
    "Engine",
    "Fallback",
    "Fixed",
    "LowestEntropy",
    "Majority",
    "MaxConfidence",
    "Mean",
    "Result",
    "Rule",
    "Strategy",
    "Transcriber",
    "Word",
    "named_strategy",
]
