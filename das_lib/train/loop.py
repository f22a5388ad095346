"""Fitting a model on cached features: the steps, and the state they resume from.

Data-parallel workers add up the gradients of their tokens' summed loss and divide by the global
batch's tokens. That is one worker's gradient, whatever the split, an empty share included.
"""

import json
import logging
import math
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.distributed
from torch.nn.functional import cross_entropy

from das_lib.config.tree import Train
from das_lib.errors import DasError
from das_lib.train.anchor import Anchor
from das_lib.train.data import Batch, TrainingData
from das_lib.train.forward import text_logits
from das_lib.train.labels import IGNORED
from das_lib.train.systems import LORA, split_system

if TYPE_CHECKING:
    from transformers import WhisperForConditionalGeneration

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
    """Trains free weights epoch by epoch; between epochs its state can be stored and loaded."""

    def __init__(
        self,
        whisper: "WhisperForConditionalGeneration",
        data: TrainingData,
        train: Train,
        *,
        seed: int,
        name: str,
        encode: bool = False,
        validation: TrainingData | None = None,
        anchor: Anchor | None = None,
        device: str | torch.device = "cpu",
        rank: int = 0,
        world: int = 1,
        on_step: Callable[[int, int, float], None] | None = None,
    ) -> None:
        """Prepare the optimiser.

        Args:
            whisper: The model; its weights that require a gradient are trained.
            data: The utterances.
            validation: Rows to judge each epoch by, none of them in ``data``.
            anchor: Holds the model near the base while it learns.
            train: Recipe.
            seed: Of the data order and of dropout, where the base has any.
            name: The system, such as ``lora:music``, for errors.
            encode: The data holds log-mel, which the model's encoder reads at every step.
            device: Where the model computes.
            rank: This worker's number; the default process group connects the workers.
            world: Number of workers.
            on_step: Called with steps done, steps in all and the step's loss.

        Raises:
            DasError: there are fewer utterances than one batch.
        """
        model: Any = whisper
        self._whisper, self._data, self._train = model.to(device).train(), data, train
        self._validation = validation
        self._anchor = None if anchor is None else anchor.to(device)
        self._seed, self._name, self._device, self._encode = seed, name, device, encode
        self._rank, self._world, self._on_step = rank, world, on_step
        self._weights = {n: w for n, w in whisper.named_parameters() if w.requires_grad}
        if world > 1:  # an SVD may come out differently on another machine
            for weight in self._weights.values():
                torch.distributed.broadcast(weight.data, src=0)
        self._optimizer = torch.optim.AdamW(
            self._weights.values(), lr=train.learning_rate, weight_decay=train.weight_decay
        )
        self.total_steps = data.steps_per_epoch(train.batch_size) * train.epochs
        self.step = 0
        self.history: list[dict[str, float]] = []
        self._best: dict[str, torch.Tensor] = {}

    @property
    def epoch(self) -> int:
        """Epochs done."""
        return len(self.history)

    @property
    def best_epoch(self) -> int:
        """The epoch (from 1) of the lowest validation loss; the last where none is measured."""
        if self._validation is None or not self.history:
            return self.epoch
        return 1 + min(range(self.epoch), key=lambda i: self.history[i]["validation_loss"])

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or ``train.patience`` is at its end."""
        patience = self._train.patience
        waited = self.epoch - self.best_epoch
        return self.epoch >= self._train.epochs or (patience is not None and waited >= patience)

    def restore_best(self) -> None:
        """Give the model the weights of `best_epoch`."""
        for name, kept in self._best.items():
            self._weights[name].data.copy_(kept)

    def run_epoch(self, epoch: int) -> dict[str, float]:
        """Train one pass over the data.

        Returns:
            epoch and steps done, mean loss a token, last learning rate, seconds, samples_per_s,
            and validation_loss where there are rows for it.

        Raises:
            DasError: the loss or its gradient is no longer finite.
        """
        started, loss_sum, tokens = time.perf_counter(), 0.0, 0.0
        rate = 0.0
        batches = self._data.batches(
            self._seed, epoch, self._train.batch_size, self._rank, self._world
        )
        anchors: Iterator[Batch | None] = repeat(None)
        if self._anchor is not None:
            anchors = self._anchor.batches(self._seed, epoch, self._rank, self._world)
        with torch.random.fork_rng():
            # Dropout depends on the place in training alone, so a resumed run repeats it.
            place = np.random.SeedSequence([self._seed, epoch, self._rank])
            torch.manual_seed(int(place.generate_state(1)[0]))
            for batch, other in zip(batches, anchors, strict=False):  # anchors have no end
                rate = learning_rate(
                    self.step, self.total_steps, self._train.learning_rate, self._train.warmup
                )
                batch_loss, batch_tokens = self._one_step(batch.to(self._device), other, rate)
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
        if self._validation is not None:
            metrics["validation_loss"] = self._validate(self._validation)
        self.history.append(metrics)
        if self._validation is not None and self.best_epoch == self.epoch:
            self._best = {n: w.detach().clone() for n, w in self._weights.items()}
        return metrics

    @torch.no_grad()
    def _validate(self, data: TrainingData) -> float:
        """Mean loss a token of rows that are not trained on."""
        self._whisper.eval()
        totals = torch.zeros(2, dtype=torch.float64)
        for batch in data.batches(0, 0, self._train.batch_size, self._rank, self._world):
            if batch.num_rows:
                loss = self._loss_sum(batch.to(self._device), smoothing=0).item()
                totals += torch.tensor([loss, (batch.targets != IGNORED).sum().item()])
        self._whisper.train()
        if self._world > 1:
            totals = totals.to(self._device)
            torch.distributed.all_reduce(totals)
        loss_sum, tokens = totals.tolist()
        return loss_sum / tokens

    def _one_step(self, batch: Batch, other: Batch | None, rate: float) -> tuple[float, float]:
        """One optimiser step; returns the global batch's summed loss and its tokens.

        The anchor's divergence on ``other`` adds to the gradient and not to the loss returned.
        """
        self._optimizer.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=self._device)
        if batch.num_rows:
            loss_sum = self._loss_sum(batch, smoothing=self._train.label_smoothing)
            loss_sum.backward()
        if self._anchor is not None and other is not None and other.num_rows:
            self._anchor.loss_sum(self._whisper, other.to(self._device)).backward()
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
            section = "train" if split_system(self._name)[0] == LORA else "baselines"
            raise DasError(
                f"{self._name}: loss {loss / tokens} with gradient norm {norm.item()} at step "
                f"{self.step + 1} of {self.total_steps} is not finite; lower "
                f"{section}.learning_rate={self._train.learning_rate:g}"
            )
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        self._optimizer.step()
        self.step += 1
        return loss, tokens

    def _loss_sum(self, batch: Batch, *, smoothing: float) -> torch.Tensor:
        """Cross-entropy summed over the text and end-of-text tokens."""
        logits_NV = text_logits(self._whisper, batch, encode=self._encode)
        answers_N = batch.targets[batch.targets != IGNORED]
        return cross_entropy(logits_NV, answers_N, reduction="sum", label_smoothing=smoothing)

    def state_dict(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Tensors (weights, AdamW moments, the best epoch's weights) and the place in training."""
        tensors = {}
        for name, weight in self._weights.items():
            tensors[f"weight.{name}"] = weight.detach()
            for moment in _MOMENTS:
                kept = self._optimizer.state[weight].get(moment, torch.zeros_like(weight))
                tensors[f"{moment}.{name}"] = kept
        tensors |= {f"best.{name}": weight for name, weight in self._best.items()}
        values = {"step": self.step, "total_steps": self.total_steps, "history": self.history}
        return tensors, values

    def load_state_dict(self, tensors: dict[str, torch.Tensor], values: dict[str, Any]) -> None:
        """Go on from a stored state.

        Raises:
            DasError: it belongs to another adapter or another number of steps.
        """
        kinds = ("weight", *_MOMENTS, *(("best",) if self._validation is not None else ()))
        expected = {f"{kind}.{name}" for kind in kinds for name in self._weights}
        if tensors.keys() != expected or values["total_steps"] != self.total_steps:
            raise DasError(
                f"{self._name}: the checkpoint ({len(tensors)} tensors, total_steps="
                f"{values['total_steps']}) is not of this configuration ({len(expected)} tensors, "
                f"total_steps={self.total_steps}); move the run's folder away and run again"
            )
        self.step, self.history = values["step"], list(values["history"])
        if self._validation is not None:
            self._best = {n: tensors[f"best.{n}"].to(self._device) for n in self._weights}
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
