"""Adapters: the frozen encoder's features once, then one Ray Train run a domain, side by side.

python -m ray_jobs.train --config configs/demo.yaml
"""

import sys
import time
from collections.abc import Mapping
from functools import partial

import pyarrow as pa
import pyarrow.compute as pc
import ray

from das_lib.config import Config
from das_lib.dataset import Dataset
from das_lib.errors import DasError
from das_lib.models import resolve_model
from das_lib.progress import Progress
from das_lib.rows import Outcome
from das_lib.train.features import EncodeFeatures
from das_lib.train.job import FitJob
from das_lib.train.leaks import REASON
from ray_jobs.fit import fit_domains
from ray_jobs.flow import OneOutput, pending_items, run_items
from ray_jobs.run import Run
from ray_jobs.runtime import parallel_domains


def train(run: Run) -> None:
    """Make the adapter of every domain that lacks one.

    Raises:
        DasError: some domains failed; the others are finished.
    """
    todo = run.pending(run.plan.adapters)
    if not todo:
        return
    features = encode(run, list(todo))
    started = time.monotonic()
    jobs = [fit_job(run, domain, features[domain], todo[domain]) for domain in todo]
    failed = {}
    steps: dict[str, tuple[int, int]] = {}
    with Progress("adapters", run.config.train.epochs * _rows(features), "samples") as progress:

        def on_progress(domain: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
            steps[domain] = (step, total)
            rows = features[domain].summary().rows_out * run.config.train.epochs
            done, _ = before.get(domain, (0, total))
            before[domain] = (step, total)
            loss = metrics.get("loss")
            progress.advance(
                round(rows * step / total) - round(rows * done / total),
                "" if loss is None else f"{domain} loss {loss:.3f}",
            )

        before: dict[str, tuple[int, int]] = {}
        parallel = parallel_domains(run.config, ray.cluster_resources())
        for domain, result in fit_domains(jobs, parallel, on_progress).items():
            if isinstance(result, Exception):
                failed[domain] = result
    fitted = {domain: dataset for domain, dataset in todo.items() if domain not in failed}
    learnt_from = {domain: features[domain].summary().rows_out for domain in fitted}
    excluded = {
        domain: len(
            {*excluded_ids(run, domain)} & {*features[domain].read(["id"])["id"].to_pylist()}
        )
        for domain in fitted
    }
    reasons = {domain: {REASON: count} for domain, count in excluded.items() if count}
    run.finish(fitted, learnt_from, started, reasons)
    if failed:
        reasons = "; ".join(f"{domain}: {error}" for domain, error in failed.items())
        raise DasError(
            f"{len(failed)} of {len(todo)} domains failed, the others are done. {reasons}"
        )


def encode(run: Run, domains: list[str]) -> dict[str, Dataset]:
    """Encode the training speech of the domains; finished features datasets by domain."""
    started = time.monotonic()
    steps = {domain: run.plan.features[domain] for domain in domains}
    todo = run.pending(steps)
    speech = {domain: run.source(run.plan.speech[domain]) for domain in todo}
    run_items(
        "features",
        pending_items(speech, todo),
        partial(OneOutput, partial(EncodeTraining, run.config)),
        todo,
        run.config.features,
    )
    splits = {domain: dataset.read(["split"])["split"] for domain, dataset in speech.items()}
    rows_in = {domain: split.to_pylist().count("train") for domain, split in splits.items()}
    run.finish(todo, rows_in, started)
    return {domain: run.source(step) for domain, step in steps.items()}


class EncodeTraining:
    """Process: the utterances of SPEECH that are for training, to rows of FEATURES."""

    def __init__(self, config: Config) -> None:
        self.encode = EncodeFeatures(
            resolve_model(config.asr.model),
            config.asr.language,
            threads=max(1, int(config.features.num_cpus)),
            device="cuda" if config.features.num_gpus else "cpu",
        )

    def __call__(self, speech: pa.Table) -> Outcome:
        """Encode a block."""
        return self.encode(speech.filter(pc.field("split") == "train"))


def excluded_ids(run: Run, domain: str) -> tuple[str, ...]:
    """Utterances that the domain's adapter must not learn, by the plan."""
    return tuple(run.plan.adapters[domain].params.get("excluded", ()))


def fit_job(run: Run, domain: str, features: Dataset, adapter: Dataset) -> FitJob:
    """What a domain's Ray Train run is told."""
    return FitJob(
        domain=domain,
        run_name=f"{domain}-{run.plan.adapters[domain].hash}",
        storage_path=str(run.output / "train"),
        feature_files=tuple(features.files()),
        excluded=excluded_ids(run, domain),
        model=run.config.asr.model,
        base_name=run.config.asr.model,
        lora=run.config.lora,
        train=run.config.train,
        seed=run.config.seed,
        adapter_dir=str(adapter.folder / "adapter"),
        curve_dir=str(adapter.folder / "curve"),
    )


def _rows(features: Mapping[str, Dataset]) -> int:
    return sum(dataset.summary().rows_out for dataset in features.values())


if __name__ == "__main__":
    from ray_jobs.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
