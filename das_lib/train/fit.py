"""One training from start to end, wherever it runs: alone, or as one of several workers."""

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from das_lib.models import resolve_model
from das_lib.storage import Folder
from das_lib.train.anchor import Anchor
from das_lib.train.base import load_base
from das_lib.train.data import BUFFER_BYTES, EqualShares, InTurn, TrainingData, split_off
from das_lib.train.job import FitJob
from das_lib.train.loop import Fitter
from das_lib.train.methods import make_trainee
from das_lib.train.record import model_card, write_curve
from das_lib.train.systems import ENCODER_DECODER, LORA, split_system


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
    """Train the epochs that are left, then write the result (rank 0).

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
        ``best_epoch``: the epoch whose weights were kept.

    Raises:
        DasError: the configuration or the data does not allow the training.
        StorageError: features cannot be read or the result cannot be written.
    """
    torch.set_num_threads(max(1, int(job.train.pool.num_cpus)))
    method, _ = split_system(job.system)
    # All domains together hold as much in memory as one alone.
    share = BUFFER_BYTES // (len(job.feature_files) + len(job.anchor_files))
    judging = job.train.validation
    splits = [split_off([*f], judging, job.excluded, share) for f in job.feature_files]
    data: TrainingData = splits[0][0] if len(splits) == 1 else EqualShares([s[0] for s in splits])
    judges = [judge for _, judge in splits if judge is not None]
    validation = InTurn(judges) if judges else None
    recipe = job.train
    if method != LORA:
        recipe = recipe.model_copy(update={"learning_rate": job.baselines.learning_rate})
    with tempfile.TemporaryDirectory() as scratch:
        base = resolve_model(job.model)
        trainee = make_trainee(
            method, base, job.base_name, job.lora, job.baselines, job.seed, Path(scratch)
        )
        encode = method == ENCODER_DECODER
        anchor = None
        if job.train.anchor and job.anchor_files:
            parts = [split_off([*f], 0, job.excluded, share)[0] for f in job.anchor_files]
            half = -(-job.train.batch_size // 2)
            weight, others = job.train.anchor, EqualShares(parts)
            anchor = Anchor(load_base(base), others, weight, half, encode=encode)
        fitter = Fitter(
            trainee.whisper,
            data,
            recipe,
            seed=job.seed,
            name=job.system,
            encode=encode,
            validation=validation,
            anchor=anchor,
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
            used = {"train": sum(part.num_rows for part, _ in splits)}
            if validation is not None:
                used["validation"] = validation.num_rows
            settings = {"lora": job.lora} if method == LORA else {"baselines": job.baselines}
            card = model_card(
                job.system, job.base_name, {**settings, "train": recipe}, job.seed, used, result
            )
            target = Folder(job.out_dir)
            folder = Path(target.url) if target.is_local else Path(scratch) / "out"
            trainee.save(folder, card, job.train.interpolation)
            if not target.is_local:
                target.upload(folder)
    return result
