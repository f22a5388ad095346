"""Adapters and baselines with Ray Train: one run each, a few side by side."""

import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.fs
import ray
import ray.exceptions

from das_lib.errors import DasError, StorageError
from das_lib.memory import KEEP_FREED_MEMORY
from das_lib.storage import Folder

if TYPE_CHECKING:
    from das_lib.train.job import FitJob
    from das_lib.train.loop import Fitter

logger = logging.getLogger(__name__)

OnProgress = Callable[[str, int, int, dict[str, float]], None]


def fit_all(
    jobs: "list[FitJob]", parallel: int, on_progress: OnProgress
) -> dict[str, Exception | dict[str, Any]]:
    """Run every training, at most ``parallel`` at a time; a failed one does not stop the others.

    Args:
        jobs: One a training.
        parallel: Trainings side by side; each takes its workers' CPUs and GPUs.
        on_progress: Called with system, steps done, steps in all and the latest ``loss``.

    Returns:
        For each system what `das_lib.train.fit.fit` returned, or the error that ended it.
    """
    progress: Any = Progress.remote()
    # Train's watchdog asks the State API whether the run's controller lives. Without an address it
    # asks the cluster that `ray start` last noted on the machine, which may be another or none.
    address = {"RAY_ADDRESS": ray.get_runtime_context().gcs_address}
    here = {"env_vars": address | KEEP_FREED_MEMORY}
    waiting, running = list(jobs), {}
    results: dict[str, Exception | dict[str, Any]] = {}
    while waiting or running:
        while waiting and len(running) < parallel:
            job = waiting.pop(0)
            running[fit_one.options(runtime_env=here).remote(job, progress)] = job.system
        ready, _ = ray.wait(list(running), timeout=0.5)
        latest: dict[str, Any] = ray.get(progress.take.remote())  # pyright: ignore[reportAssignmentType]
        for system, step in latest.items():
            on_progress(system, *step)
        for reference in ready:
            system = running.pop(reference)
            try:
                outcome = ray.get(reference)
            except ray.exceptions.RayError as error:
                outcome = _cause(error)
            results[system] = outcome
            if isinstance(outcome, Exception):
                logger.error("%s failed: %s", system, outcome)
            else:
                steps, last = outcome["steps"], outcome["history"][-1]
                on_progress(system, steps, steps, {"loss": last["loss"]})
    return results


def _cause(error: Exception) -> Exception:
    """The worker's own error, where it is one that the user can act on."""
    error = getattr(error, "cause", None) or error
    failures = getattr(error, "worker_failures", {}).values()
    causes = [getattr(failure, "_base_exc", failure) for failure in failures]
    return next((cause for cause in causes if isinstance(cause, DasError)), error)


@ray.remote(num_cpus=0)
class Progress:
    """Holds the latest step of each training until the driver asks."""

    def __init__(self) -> None:
        self._latest: dict[str, tuple[int, int, dict[str, float]]] = {}

    def push(self, system: str, step: int, total: int, metrics: dict[str, float]) -> None:
        """Note a step."""
        self._latest[system] = (step, total, metrics)

    def take(self) -> dict[str, tuple[int, int, dict[str, float]]]:
        """What is new since the last call."""
        latest, self._latest = self._latest, {}
        return latest


@ray.remote(num_cpus=0)
def fit_one(job: "FitJob", progress: Any) -> Any:
    """Run one training in its own Ray Train run, going on from the run's last checkpoint."""
    # Here and in _on_worker, for `Progress` needs none of it: Ray Train and torch cost a process
    # seconds and hundreds of megabytes.
    from ray.train import CheckpointConfig, FailureConfig, LoggingConfig, RunConfig, ScalingConfig
    from ray.train.torch import TorchTrainer

    pool, storage = job.train.pool, Folder(job.storage_path)
    where: dict[str, Any] = {"storage_path": storage.url}
    if not storage.is_local:  # the same credentials and endpoint as everything else
        filesystem = pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(storage.fs))
        path = storage.url.split("://", 1)[1]
        where = {"storage_path": path, "storage_filesystem": filesystem}
    trainer = TorchTrainer(
        _on_worker,
        train_loop_config={"job": job, "progress": progress},
        scaling_config=ScalingConfig(
            num_workers=job.train.workers_per_domain,
            use_gpu=pool.num_gpus > 0,
            resources_per_worker={
                "CPU": pool.num_cpus,
                **({"GPU": pool.num_gpus} if pool.num_gpus else {}),
            },
        ),
        run_config=RunConfig(
            name=job.run_name,
            failure_config=FailureConfig(max_failures=job.train.max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=1),
            logging_config=LoggingConfig(log_level="ERROR"),
            **where,
        ),
    )
    return trainer.fit().return_value


def _on_worker(config: dict[str, Any]) -> dict[str, Any] | DasError:
    """What every worker of a run does; what rank 0 returns is the run's result."""
    import ray.train
    from ray.train.torch import get_device

    from das_lib.train.fit import fit

    job, progress = config["job"], config["progress"]
    context, checkpoint = ray.train.get_context(), ray.train.get_checkpoint()
    rank = context.get_world_rank()

    def on_step(step: int, total: int, loss: float) -> None:
        if rank == 0:
            progress.push.remote(job.system, step, total, {"loss": loss})

    def on_epoch(fitter: "Fitter") -> None:
        with tempfile.TemporaryDirectory() as folder:
            kept = None
            if rank == 0:
                fitter.save(Path(folder))
                kept = ray.train.Checkpoint.from_directory(folder)
            ray.train.report(fitter.history[-1], checkpoint=kept)  # every worker: it is a barrier

    with tempfile.TemporaryDirectory() as folder:
        if checkpoint is not None:
            checkpoint.to_directory(folder)
        try:
            return fit(
                job,
                on_epoch=on_epoch,
                on_step=on_step,
                checkpoint=Path(folder) if checkpoint is not None else None,
                device=get_device(),  # pyright: ignore[reportArgumentType]
                rank=rank,
                world=context.get_world_size(),
            )
        except StorageError:
            raise  # may pass: Ray Train tries again
        except DasError as error:
            return error  # the same on every worker and at every try
