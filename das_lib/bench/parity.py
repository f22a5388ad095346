"""`das bench parity`: the engine's tokens against stock transformers and PEFT, and its WER.

The reference is Algorithm 1 on separate stock models, float32, without a cache: each branch is a
model of its own, and one full forward pass over an utterance's whole token sequence gives its
distribution after every prefix (a causal decoder sees no later token). If the rule, applied to
those, chooses the engine's token at every step, then by induction the loop that feeds its own
choices back ends in the same sequence.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import torch

from das_lib.adml import Adml, Fixed, Result, Transcriber
from das_lib.bench.prescribed import Prescribed
from das_lib.bench.timing import publish
from das_lib.errors import Reject
from das_lib.evaluation.wer import corpus_wer


@dataclass(frozen=True)
class Branches:
    """The base and each adapter as a stock model."""

    models: list[Any]
    prompt: list[int]

    @classmethod
    def load(cls, model_folder: Path, adapters: Mapping[str, Path]) -> "Branches":
        """Load every branch on a base of its own."""
        from peft import PeftModel
        from transformers import WhisperForConditionalGeneration

        def base() -> Any:
            return WhisperForConditionalGeneration.from_pretrained(str(model_folder)).eval()

        models = [base()] + [
            PeftModel.from_pretrained(base(), folder).eval() for folder in adapters.values()
        ]
        g = models[0].generation_config
        start = [g.decoder_start_token_id]
        if getattr(g, "is_multilingual", True) is not False:
            start += [g.lang_to_id["<|en|>"], g.task_to_id["transcribe"]]
        return cls(models, [*start, g.no_timestamps_token_id])

    @torch.inference_mode()
    def choices(self, mel_FT: torch.Tensor, tokens: Sequence[int], tau: float) -> list[int]:
        """Algorithm 1's choice after every prefix of ``tokens``."""
        g = self.models[0].generation_config
        encoded = self.models[0].model.encoder(mel_FT.unsqueeze(0))
        ids = torch.tensor([[*self.prompt, *tokens[:-1]]])
        confidences, bests = [], []
        for model in self.models:
            out = model(encoder_outputs=encoded, decoder_input_ids=ids, use_cache=False)
            logits_TV = out.logits[0, len(self.prompt) - 1 :].float()
            logits_TV[:, g.suppress_tokens or []] = -torch.inf
            logits_TV[0, g.begin_suppress_tokens or []] = -torch.inf
            c_T, n_T = logits_TV.softmax(-1).max(-1)
            confidences.append(c_T.tolist())
            bests.append(n_T.tolist())
        chosen = []
        for c, n in zip(zip(*confidences, strict=True), zip(*bests, strict=True), strict=True):
            branch = 0
            if max(c) - c[0] >= tau:
                branch = c.index(max(c))
            elif min(c) - c[0] <= -tau:
                branch = c.index(min(c))
            chosen.append(n[branch])
        return chosen


def bench_parity(
    model_folder: Path,
    clips: Sequence[np.ndarray],
    references: Sequence[str],
    adapters: Mapping[str, Path],
    *,
    tau: float,
    batch: int,
    device: str = "cpu",
) -> None:
    """Measure and publish agreement and word error rates."""
    rows: list[dict[str, Any]] = []
    branches = Branches.load(model_folder, adapters)
    exact: list[Result] = []
    precisions = ("float32", "bfloat16", "bfloat16-all")
    for precision in precisions if device == "cpu" else precisions[:2]:
        engine = Transcriber.from_pretrained(
            model_folder, adapters, precision=precision, language="en", device=device
        )
        found = engine.transcribe(
            list(clips), {"das": Adml(tau=tau), "base": Fixed(0)}, batch_size=batch
        )
        results = [row for row in found if not isinstance(row, Reject)]
        das = [row["das"] for row in results]
        if precision == "float32":
            exact = das
            wanted = [
                branches.choices(engine.features([clip])[0].cpu(), result.tokens, tau)
                for clip, result in zip(clips, das, strict=True)
            ]
        else:
            wanted = [result.tokens for result in exact]
        rows.append(
            {
                "what": "das " + ("against stock Algorithm 1" if not rows else "against float32"),
                "dtype": precision,
                "device": device,
                "utterances": len(das),
                "utterances_equal": sum(r.tokens == w for r, w in zip(das, wanted, strict=True)),
                "tokens": sum(len(w) for w in wanted),
                "token_edits": sum(edits(r.tokens, w) for r, w in zip(das, wanted, strict=True)),
                "choices_equal": same_choices(engine, clips, wanted, tau=tau),
                "wer_base": wer(references, [row["base"].text for row in results]),
                "wer_das": wer(references, [r.text for r in das]),
            }
        )
    for row in rows:
        row["agreement"] = row["choices_equal"] / row["tokens"]
    rows.append(
        {
            "what": "transformers generate, base",
            "dtype": "float32",
            "utterances": len(clips),
            "wer_base": wer(references, stock_texts(branches.models[0], model_folder, clips)),
        }
    )
    notes = [
        "token_edits: substitutions, deletions and insertions between transcripts.",
        "choices_equal, agreement: the same token chosen behind the same prefix.",
    ]
    publish("parity", rows, notes)


@torch.inference_mode()
def same_choices(
    transcriber: Transcriber,
    clips: Sequence[np.ndarray],
    wanted: Sequence[Sequence[int]],
    *,
    tau: float,
) -> int:
    """How many tokens of the transcripts the engine chooses behind the same prefix."""
    engine, count = transcriber.engine, 0
    strategy = Prescribed(Adml(tau=tau), max(wanted, key=len), min(engine.prompts.end))
    for clip, tokens in zip(clips, wanted, strict=True):
        strategy.prescribe(tokens)
        engine.decode(engine.memory(engine.encode(transcriber.features([clip]))), ["en"], strategy)
        # Not strict: behind the last of them, the end is taken.
        count += sum(t == w for t, w in zip(strategy.chosen(0), tokens, strict=False))
    return count


def edits(tokens: Sequence[int], wanted: Sequence[int]) -> int:
    """Least substitutions, deletions and insertions of tokens between two sequences."""
    if list(tokens) == list(wanted):
        return 0
    if not wanted:
        return len(tokens)
    one, other = (" ".join(map(str, part)) for part in (wanted, tokens))
    counts = jiwer.process_words(one, other)
    return counts.substitutions + counts.deletions + counts.insertions


def wer(references: Sequence[str], texts: Sequence[str]) -> float:
    """Percent, corpus level, Whisper's English normaliser on both sides."""
    measured = corpus_wer(zip(references, texts, strict=True))
    return float("nan") if measured is None else 100 * measured.wer


@torch.inference_mode()
def stock_texts(model: Any, model_folder: Path, clips: Sequence[np.ndarray]) -> list[str]:
    """Transcripts of transformers' greedy `generate`."""
    from transformers import WhisperProcessor

    processor = WhisperProcessor.from_pretrained(str(model_folder))
    texts = []
    for clip in clips:
        mel = processor(clip, sampling_rate=16_000, return_tensors="pt").input_features
        ids = model.generate(
            input_features=mel, language="en", task="transcribe", do_sample=False, num_beams=1
        )
        texts.append(processor.batch_decode(ids, skip_special_tokens=True)[0].strip())
    return texts
