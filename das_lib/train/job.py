"""One domain's adapter from start to end, wherever it runs: alone, or as one of several workers."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from das_lib.config.tree import Lora, Train
from das_lib.models import resolve_model
from das_lib.storage import Folder
from das_lib.train.base import load_base
from das_lib.train.data import split_off
from das_lib.train.loop import Fitter
from das_lib.train.lora import make_peft_model, save_adapter, save_initial
from das_lib.train.record import model_card, write_curve


@dataclass(frozen=True, slots=True, kw_only=True)
class FitJob:
    """All that one domain's run needs; every path is reachable from every worker."""

    domain: str
    run_name: str
    """Carries the configuration's hash: a run of the same name is resumed."""
    storage_path: str
    """Folder of the runs' checkpoints, local or s3://."""
    feature_files: tuple[str, ...]
    """The domain's FEATURES files."""
    excluded: tuple[str, ...]
    """Ids of rows that are not learnt from; see `das_lib.train.leaks`."""
    model: str
    """The base model, a name or a folder; resolved on the machine of each worker."""
    base_name: str
    """The base as the user names it; what the adapter says it belongs to."""
    lora: Lora
    train: Train
    seed: int
    adapter_dir: str
    """Where the PEFT folder appears, local or s3://."""
    curve_dir: str
    """Where the training curve appears, local or s3://."""


def fit(
    job: FitJob,
    *,
    on_epoch: Callable[[Fitter], None],
    on_step: Callable[[int, int, float], None] | None = None,
    checkpoint: Path | None = None,
    device: str | torch.device = "cpu",
    rank: int = 0,
    world: int = 1,
) -> dict[str, Any]:
    """Train the epochs that are left, then write the adapter (rank 0).

    Args:
        job: The run.
        on_epoch: Called by every worker after each epoch, to store the state.
        on_step: See `Fitter`.
        checkpoint: Folder that `Fitter.save` wrote, to go on from.
        device: See `Fitter`.
        rank: See `Fitter`.
        world: See `Fitter`.

    Returns:
        ``history``: one entry of `Fitter.run_epoch` an epoch; ``steps``: optimiser steps done;
        ``best_epoch``: the epoch whose adapter was kept.

    Raises:
        DasError: the configuration or the data does not allow the training.
        StorageError: features cannot be read or the adapter cannot be written.
    """
    torch.set_num_threads(max(1, int(job.train.pool.num_cpus)))
    files, part = list(job.feature_files), job.train.validation
    data, validation = split_off(files, part, job.excluded)
    model = make_peft_model(load_base(resolve_model(job.model)), job.lora, job.seed)
    with tempfile.TemporaryDirectory() as scratch:
        initial = Path(scratch) / "initial"
        save_initial(model, initial)
        fitter = Fitter(
            model,
            data,
            job.train,
            seed=job.seed,
            domain=job.domain,
            validation=validation,
            device=device,
            rank=rank,
            world=world,
            on_step=on_step,
        )
        if checkpoint is not None:
            fitter.load(checkpoint)
        while not fitter.finished:
            fitter.run_epoch(fitter.epoch)
            on_epoch(fitter)
        fitter.restore_best()
        result = {
            "history": fitter.history,
            "steps": fitter.step,
            "best_epoch": fitter.best_epoch,
        }
        if rank == 0:
            curve = Path(scratch) / "curve"
            curve.mkdir()
            write_curve(curve, fitter.history)
            Folder(job.curve_dir).upload(curve)
            target = Folder(job.adapter_dir)
            folder = Path(target.url) if target.is_local else Path(scratch) / "adapter"
            used = {"train": data.num_rows}
            if validation is not None:
                used["validation"] = validation.num_rows
            card = model_card(
                job.domain, job.base_name, job.lora, job.train, job.seed, used, result
            )
            save_adapter(model, initial, folder, job.base_name, card)
            if not target.is_local:
                target.upload(folder)
    return result
