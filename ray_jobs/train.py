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
from das_lib.ids import utterance_id
from das_lib.models import resolve_model
from das_lib.progress import Progress
from das_lib.rows import Outcome
from das_lib.steps import Step
from das_lib.train.base import bytes_per_utterance
from das_lib.train.job import FitJob
from das_lib.train.leaks import REASON
from das_lib.train.systems import LORA, MULTI, result_folder, split_system, system_name
from ray_jobs.fit import fit_all
from ray_jobs.flow import OneOutput, pending_items, run_items
from ray_jobs.run import Run
from ray_jobs.runtime import parallel_domains


def train(run: Run) -> None:
    """Make the adapter of every domain that lacks one, and the baselines that are asked for.

    Raises:
        DasError: some trainings failed; the others are finished.
    """
    adapters = {system_name(LORA, domain): step for domain, step in run.plan.adapters.items()}
    steps = adapters | run.plan.baselines
    todo = run.pending(steps)
    if not todo:
        return
    sources = encode(run, [dep for system in todo for dep in steps[system].deps])
    started = time.monotonic()
    jobs = [
        fit_job(run, system, steps[system], sources, dataset) for system, dataset in todo.items()
    ]
    rows = {
        system: sum(sources[dep.path].summary().rows_out for dep in learnt(system, steps[system]))
        for system in todo
    }
    failed = fit(run, jobs, rows)
    fitted = {system: dataset for system, dataset in todo.items() if system not in failed}
    reasons = {}
    for system in fitted:
        excluded = {*excluded_ids(steps[system])}
        ids = [i for dep in learnt(system, steps[system]) for i in _ids(sources[dep.path])]
        left_out = sum(utterance_id(i) in excluded for i in ids)
        if left_out:
            reasons[system] = {REASON: left_out}
    run.finish(fitted, rows, started, reasons)
    if failed:
        why = "; ".join(f"{system}: {error}" for system, error in failed.items())
        raise DasError(f"{len(failed)} of {len(todo)} trainings failed, the others are done. {why}")


def fit(run: Run, jobs: list[FitJob], rows: Mapping[str, int]) -> dict[str, Exception]:
    """Run the trainings side by side; the errors of those that failed, by system."""
    epochs = run.config.train.epochs
    before: dict[str, int] = {}
    with Progress("adapters", epochs * sum(rows.values()), "samples") as progress:

        def on_progress(system: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
            done = round(rows[system] * epochs * step / total)
            loss = metrics.get("loss")
            progress.advance(
                done - before.get(system, 0), "" if loss is None else f"{system} loss {loss:.3f}"
            )
            before[system] = done

        parallel = parallel_domains(run.config, ray.cluster_resources())
        results = fit_all(jobs, parallel, on_progress)
    return {system: result for system, result in results.items() if isinstance(result, Exception)}


def encode(run: Run, steps: list[Step]) -> dict[str, Dataset]:
    """Encode the training speech that is not yet encoded; finished datasets by path.

    Steps of the stage ``features`` hold what the frozen encoder makes of it, those of
    ``spectrograms`` the log-mel, for methods that train the encoder.
    """
    for stage in ("features", "spectrograms"):
        wanted = {step.name: step for step in steps if step.stage == stage}
        started = time.monotonic()
        todo = run.pending(wanted)
        if not todo:
            continue
        speech = {domain: run.source(wanted[domain].deps[0]) for domain in todo}
        splits = {domain: dataset.read(["split"])["split"] for domain, dataset in speech.items()}
        versions = run.config.augment.versions
        rows_in = {d: versions * split.to_pylist().count("train") for d, split in splits.items()}
        announce(stage, sum(rows_in.values()), run.config)
        run_items(
            stage,
            pending_items(speech, todo),
            partial(OneOutput, partial(EncodeTraining, run.config, stage)),
            todo,
            run.config.features,
        )
        run.finish(todo, rows_in, started)
    return {step.path: run.source(step) for step in steps}


def announce(stage: str, utterances: int, config: Config) -> None:
    """Say before it is written how large the cache will be."""
    each = bytes_per_utterance(resolve_model(config.asr.model), log_mel=stage == "spectrograms")
    size = f"{utterances * each / 2**30:.2f} GiB"
    print(f"{stage:<12} {utterances} utterances will take {size}", file=sys.stderr, flush=True)


class EncodeTraining:
    """Process: the utterances of SPEECH that are for training, to rows of FEATURES."""

    def __init__(self, config: Config, stage: str) -> None:
        # Here: a driver, which imports this module, would wait for torch and scipy for seconds.
        from das_lib.speech.augment import Augmenter
        from das_lib.train.features import EncodeFeatures

        self.augment = Augmenter(config.augment, config.seed)
        self.encode = EncodeFeatures(
            resolve_model(config.asr.model),
            config.asr.language,
            threads=max(1, int(config.features.num_cpus)),
            device="cuda" if config.features.num_gpus else "cpu",
            log_mel=stage == "spectrograms",
            masks=self.augment if config.augment.masks else None,
            base_style=config.train.style == "base",
        )

    def __call__(self, speech: pa.Table) -> Outcome:
        """Encode a block."""
        return self.encode(self.augment(speech.filter(pc.field("split") == "train")))


def excluded_ids(step: Step) -> tuple[str, ...]:
    """Utterances that must not be learnt, by the plan."""
    return tuple(step.params.get("excluded", ()))


def learnt(system: str, step: Step) -> list[Step]:
    """What a training learns from; the rest of what it reads anchors it."""
    _, domain = split_system(system)
    return [dep for dep in step.deps if domain in (dep.name, MULTI)]


def fit_job(
    run: Run, system: str, step: Step, sources: Mapping[str, Dataset], result: Dataset
) -> FitJob:
    """What a training's Ray Train run is told."""
    files = {dep.path: tuple(sources[dep.path].files()) for dep in step.deps}
    own = [dep.path for dep in learnt(system, step)]
    return FitJob(
        system=system,
        run_name=f"{step.name}-{step.hash}",
        storage_path=str(run.output / "train"),
        feature_files=tuple(files[path] for path in own),
        anchor_files=tuple(files[path] for path in files if path not in own),
        excluded=excluded_ids(step),
        model=run.config.asr.model,
        base_name=run.config.asr.model,
        lora=run.config.lora,
        train=run.config.train,
        baselines=run.config.baselines,
        seed=run.config.seed,
        out_dir=str(result.folder / result_folder(system)),
        curve_dir=str(result.folder / "curve"),
    )


def _ids(dataset: Dataset) -> list[str]:
    return dataset.read(["id"])["id"].to_pylist()


if __name__ == "__main__":
    from ray_jobs.cli import main

    sys.exit(main(["train", *sys.argv[1:]]))
