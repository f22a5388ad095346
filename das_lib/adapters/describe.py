"""What an adapter is and how much it changes."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch

from das_lib.adml.adapter import Adapter, BaseShape, read_adapter
from das_lib.adml.checkpoint import Checkpoint, read_checkpoint
from das_lib.adml.engine import Engine

PROBE_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Description:
    """Figures of one adapter on its base."""

    parameters: int
    share: float
    """Of the base's parameters."""
    ranks: Mapping[str, list[int]]
    """Those that occur, by projection."""
    change: Mapping[str, float]
    """Frobenius norm of B A over that of the projection's weights, all layers together."""
    probe_logit: float
    """Largest change of a logit on the probe."""
    probe_kl: float
    """Mean divergence of the adapter's distribution from the base's on the probe, nat a token."""


def describe(folder: Path, base: Path) -> Description:
    """Measure a PEFT LoRA folder.

    The probe is noise with random tokens, the same for every adapter of a base: it tells a trained
    adapter from one that changes next to nothing, not a good one from a bad one.

    Raises:
        ModelError: See `read_adapter` and `read_checkpoint`.
    """
    model = read_checkpoint(base)
    adapter = read_adapter(folder.name, folder, BaseShape.of(model.config))
    ranks: dict[str, set[int]] = defaultdict(set)
    norms: dict[str, list[float]] = defaultdict(lambda: [0.0, 0.0])
    for site, (a_RI, b_OR) in adapter.deltas.items():
        layer, projection = site.split(".", 1)
        ranks[projection].add(len(a_RI))
        # |B A|^2 = trace(A A^T B^T B): nothing of the weights' size.
        change = ((a_RI @ a_RI.T) * (b_OR.T @ b_OR)).sum().item()
        weight = model[f"decoder.layers.{layer}.{projection}.weight"].square().sum().item()
        norms[projection] = [norms[projection][0] + change, norms[projection][1] + weight]
    parameters = sum(a.numel() + b.numel() for a, b in adapter.deltas.values())
    probe_logit, probe_kl = _probe(model, adapter, folder)
    return Description(
        parameters=parameters,
        share=parameters / sum(tensor.numel() for tensor in model.tensors.values()),
        ranks={projection: sorted(found) for projection, found in sorted(ranks.items())},
        change={p: (max(c, 0.0) / w) ** 0.5 for p, (c, w) in sorted(norms.items())},
        probe_logit=probe_logit,
        probe_kl=probe_kl,
    )


@torch.inference_mode()
def _probe(model: Checkpoint, adapter: Adapter, folder: Path) -> tuple[float, float]:
    engine = Engine.load(model.folder, {adapter.name: folder})
    draw = torch.Generator().manual_seed(0)
    window = 2 * model.config["max_source_positions"]
    mel_BFT = torch.randn(1, model.config["num_mel_bins"], window, generator=draw) * 0.3
    memory = engine.memory(engine.encode(mel_BFT))
    [language] = engine.languages(memory)
    end = min(engine.prompts.end)
    text_BT = torch.randint(0, end, (1, PROBE_TOKENS), generator=draw)
    state = engine.decoder.start(memory, engine.deltas((0, 1)), branches=2)
    x_NBTD = engine.decoder.forward(
        state, torch.cat([engine.prompts.build([language]), text_BT], 1)
    )
    logits_NTV = engine.vocabulary(False).logits(x_NBTD[:, 0, -PROBE_TOKENS - 1 :])
    kept_NTV = logits_NTV[:, :, torch.isfinite(logits_NTV[0, 0])]
    base, adapted = kept_NTV.log_softmax(-1)
    kl = (base.exp() * (base - adapted)).sum(-1).mean()
    return (kept_NTV[1] - kept_NTV[0]).abs().max().item(), kl.item()
