"""Auto-regressive decoding with multiple LoRA adapters (ADML; paper, Algorithm 1).

Reading order: `select` (the rule), `engine` (the loop), `decoder` (the layers), `bank` (the
adapters' algebra), `adapter` (reading PEFT folders), `prompt` (Whisper's prompts).
"""

from das_lib.adml.bank import AdapterBank
from das_lib.adml.engine import Result, Transcriber
from das_lib.adml.select import Adml, Fixed, MaxConfidence, Rule, Strategy

__all__ = [
    "AdapterBank",
    "Adml",
    "Fixed",
    "MaxConfidence",
    "Result",
    "Rule",
    "Strategy",
    "Transcriber",
]
