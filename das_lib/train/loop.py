"""Fitting one adapter on cached encoder outputs: the steps, and the state they resume from.

Data-parallel workers add up the gradients of their tokens' summed loss and divide by the global
batch's tokens. That is one worker's gradient, whatever the split, an empty share included.
"""

import json
import logging
import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed
from torch.nn.functional import cross_entropy

from das_lib.config.tree import Train
from das_lib.errors import DasError
from das_lib.train.data import Batch, FeatureData
from das_lib.train.forward import decode
from das_lib.train.labels import IGNORED

if TYPE_CHECKING:
    from peft import PeftModel

logger = logging.getLogger(__name__)

MAX_GRADIENT_NORM = 1.0
WEIGHTS_FILE, STATE_FILE = "state.safetensors", "state.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")


def learning_rate(step: int, total_steps: int, peak: float, warmup: float) -> float:
    """Rate of a step (from 0): up in a line over the warm-up, then down in a line towards 0."""
    rising = math.ceil(warmup * total_steps)
    if step < rising:
        return peak * (step + 1) / rising
    return peak * (total_steps - step) / max(1, total_steps - rising)


class Fitter:
    """Trains an adapter epoch by epoch; between epochs its state can be stored and loaded."""

    def __init__(
        self,
        model: "PeftModel",
        data: FeatureData,
        train: Train,
        *,
        seed: int,
        domain: str,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world: int = 1,
        on_step: Callable[[int, int, float], None] | None = None,
    ) -> None:
        """Prepare the optimiser.

        Args:
            model: From `make_peft_model`.
            data: The domain's features.
            train: Recipe.
            seed: Of the data order and of dropout, where the base has any.
            domain: Named in errors.
            device: Where the model computes.
            rank: This worker's number; the default process group connects the workers.
            world: Number of workers.
            on_step: Called with steps done, steps in all and the step's loss.

        Raises:
            DasError: there are fewer utterances than one batch.
        """
        self._model, self._data, self._train = model.to(device).train(), data, train
        self._whisper: Any = model.base_model.model
        self._seed, self._domain, self._device = seed, domain, device
        self._rank, self._world, self._on_step = rank, world, on_step
        self._weights = {n: w for n, w in model.named_parameters() if w.requires_grad}
        if world > 1:  # an SVD may come out differently on another machine
            for weight in self._weights.values():
                torch.distributed.broadcast(weight.data, src=0)
        self._optimizer = torch.optim.AdamW(
            self._weights.values(), lr=train.learning_rate, weight_decay=train.weight_decay
        )
        self.total_steps = data.steps_per_epoch(train.batch_size) * train.epochs
        self.step = 0
        self.history: list[dict[str, float]] = []

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return len(self.history)

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one pass over the data.

        Returns:
            epoch and steps done, mean loss a token, last learning rate, seconds, samples_per_s.

        Raises:
            DasError: the loss or its gradient is no longer finite.
        """
        started, loss_sum, tokens = time.perf_counter(), 0.0, 0.0
        rate = 0.0
        batches = self._data.batches(
            self._seed, epoch, self._train.batch_size, self._rank, self._world
        )
        with torch.random.fork_rng():
            # Dropout depends on the place in training alone, so a resumed run repeats it.
            place = np.random.SeedSequence([self._seed, epoch, self._rank])
            torch.manual_seed(int(place.generate_state(1)[0]))
            for batch in batches:
                rate = learning_rate(
                    self.step, self.total_steps, self._train.learning_rate, self._train.warmup
                )
                batch_loss, batch_tokens = self._one_step(batch.to(self._device), rate)
                loss_sum, tokens = loss_sum + batch_loss, tokens + batch_tokens
                if self._on_step is not None:
                    self._on_step(self.step, self.total_steps, batch_loss / batch_tokens)
        seconds = time.perf_counter() - started
        metrics = {
            "epoch": epoch + 1,
            "step": self.step,
            "loss": loss_sum / tokens,
            "learning_rate": rate,
            "seconds": seconds,
            "samples_per_s": self._data.num_rows / seconds,
        }
        self.history.append(metrics)
        return metrics

    def _one_step(self, batch: Batch, rate: float) -> tuple[float, float]:
        """One optimiser step; returns the global batch's summed loss and its tokens."""
        self._optimizer.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=self._device)
        if batch.num_rows:
            loss_sum = self._loss_sum(batch)
            loss_sum.backward()
        totals = torch.stack([loss_sum.detach(), (batch.targets != IGNORED).sum().float()])
        gradients = [
            torch.zeros_like(w) if w.grad is None else w.grad for w in self._weights.values()
        ]
        if self._world > 1:
            flat = torch.cat([totals, *(g.flatten() for g in gradients)])
            torch.distributed.all_reduce(flat)
            totals, *parts = flat.split([2, *(g.numel() for g in gradients)])
            gradients = [p.view_as(g) for p, g in zip(parts, gradients, strict=True)]
        loss, tokens = totals.tolist()
        for weight, gradient in zip(self._weights.values(), gradients, strict=True):
            weight.grad = gradient / tokens
        norm = torch.nn.utils.clip_grad_norm_(self._weights.values(), MAX_GRADIENT_NORM)
        if not (math.isfinite(loss) and math.isfinite(norm.item())):
            raise DasError(
                f"domain {self._domain}: loss {loss / tokens} with gradient norm {norm.item()} at "
                f"step {self.step + 1} of {self.total_steps} is not finite; lower "
                f"train.learning_rate={self._train.learning_rate:g}"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.step += 1
        return loss, tokens

    def _loss_sum(self, batch: Batch) -> torch.Tensor:
        """Cross-entropy summed over the text and end-of-text tokens; the encoder does not run."""
        hidden_BTD = decode(self._whisper.model.decoder, batch.encoded, batch.inputs)
        predicted = batch.targets != IGNORED
        logits_NV = self._whisper.proj_out(hidden_BTD[predicted])
        return cross_entropy(logits_NV, batch.targets[predicted], reduction="sum")

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors (adapter weights, AdamW moments) and plain values (place in training)."""
        tensors = {}
        for name, weight in self._weights.items():
            tensors[f"weight.{name}"] = weight.detach()
            for moment in _MOMENTS:
                kept = self._optimizer.state[weight].get(moment, torch.zeros_like(weight))
                tensors[f"{moment}.{name}"] = kept
        values = {"step": self.step, "total_steps": self.total_steps, "history": self.history}
        return tensors, values

    def load_state_dict(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Go on from a stored state.

        Raises:
            DasError: it belongs to another adapter or another number of steps.
        """
        expected = {f"{p}.{n}" for p in ("weight", *_MOMENTS) for n in self._weights}
        if tensors.keys() != expected or values["total_steps"] != self.total_steps:
            raise DasError(
                f"domain {self._domain}: the checkpoint ({len(tensors)} tensors, total_steps="
                f"{values['total_steps']}) is not of this configuration ({len(expected)} tensors, "
                f"total_steps={self.total_steps}); move the run's folder away and run again"
            )
        self.step, self.history = values["step"], list(values["history"])
        for name, weight in self._weights.items():
            with torch.no_grad():
                weight.copy_(tensors[f"weight.{name}"])
            self._optimizer.state[weight] = {
                "step": torch.tensor(float(self.step)),
                **{m: tensors[f"{m}.{name}"].to(self._device, copy=True) for m in _MOMENTS},
            }

    def save(self, folder: Path) -> None:
        """Write the state as safetensors and JSON; nothing is pickled."""
        from safetensors.torch import save_file

        tensors, values = self.state_dict()
        save_file({n: t.cpu().contiguous() for n, t in tensors.items()}, folder / WEIGHTS_FILE)
        (folder / STATE_FILE).write_text(json.dumps(values))

    def load(self, folder: Path) -> None:
        """Read what `save` wrote."""
        from safetensors.torch import load_file

        values = json.loads((folder / STATE_FILE).read_text())
        self.load_state_dict(load_file(folder / WEIGHTS_FILE), values)
