"""Starting or joining Ray, and refusing plans that would hang on it."""

import io
import logging
import os
import sys
import time
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from pathlib import Path
from typing import Any

import ray
import ray.data
import ray.exceptions

from das_lib.config import Config
from das_lib.errors import DasError
from das_lib.storage import Folder
from ray_jobs.scheduling import batch_work

FEEDERS = 2  # a second block is read while the first is decoded: batches stay full
FEEDER_CPUS = 0.25
NO_PROGRESS_TIMEOUT_S = 900  # a stuck dataset is an error, not a night lost
NODES_S = 120.0  # within this, a node that died is back, or another stands in for it
STARTS = 3
"""How often a local Ray is started. Ray ends a node of which a helper is not there within 15 s, a
number that cannot be set (ray-project/ray#65983); on a busy machine that may be too short."""

CALM = {
    "RAY_SERVE_CONTROL_LOOP_INTERVAL_S": "0.5",  # 0.1
    "RAY_SERVE_METRICS_EXPORT_INTERVAL_MS": "2000",  # 100
    "RAY_raylet_report_resources_period_milliseconds": "1000",  # 100
    "RAY_raylet_check_gc_period_milliseconds": "1000",  # 100
    "RAY_task_events_report_interval_ms": "10000",  # 1000
    "REPORTER_UPDATE_INTERVAL_MS": "60000",  # 5000
    # Looks for new log files each time, 10 times a second, unless they are taken to be many.
    "LOG_NAME_UPDATE_INTERVAL_S": "10",  # 0.5
    "RAY_LOG_MONITOR_MANY_FILES_THRESHOLD": "0",  # 1000
}
"""How often the processes of a local Ray look around, and how often they would by themselves.

They are a score on the few cores that compute: whatever they take, decoding waits for, and what
they leave in the caches, it reads again. On one node there is little to look for."""


def in_submitted_job() -> bool:
    """Whether this process is the entrypoint of `ray job submit`."""
    return "RAY_JOB_CONFIG_JSON_ENV_VAR" in os.environ


def output_folder(config: Config) -> Folder:
    """Where the results go.

    A relative path is taken from the current folder; in a submitted job, whose working directory
    Ray deletes, from ``$DAS_HOME`` (default ``~/das``).
    """
    return Folder(job_path(config.output))


def job_path(path: str) -> str:
    """A path as `output_folder` takes it; addresses stay as they are."""
    if "://" not in path and not os.path.isabs(path) and in_submitted_job():
        return str(Path(os.environ.get("DAS_HOME", "~/das")).expanduser() / path)
    return path


@contextmanager
def ray_session(config: Config, *, bulk: bool = False) -> Iterator[None]:
    """Join the cluster that ``RAY_ADDRESS`` or a submitted job names, else start a local Ray.

    Args:
        config: The run's.
        bulk: A local Ray is for one long job that needs neither the dashboard, which is ten
            processes more and which training asks (see `_init`), nor answers at once.

    Raises:
        DasError: the cluster cannot be reached, or is too small for the configuration.
    """
    warnings.filterwarnings("ignore", category=FutureWarning, module="ray")
    # The core's lines on every actor pool would drown the progress line; Ray's own log files
    # and every Python exception stay.
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    # Workers use this process's interpreter; `uv run` would otherwise install anew on each.
    os.environ.setdefault("RAY_ENABLE_UV_RUN_RUNTIME_ENV", "0")
    mine = not ray.is_initialized()
    local = mine and not _joins()
    # Standard output is for results; Ray prints hints about its worker processes there.
    with redirect_stdout(_RayLog()), batch_work(long_slices=bulk) if local else nullcontext():
        if mine:
            _init(config, bulk)
        try:
            _quiet()
            await_resources(config, NODES_S if mine and not local else 0.0)
            yield
        finally:
            if mine:
                ray.shutdown()


def await_resources(config: Config, patience_s: float) -> None:
    """`require_resources` of the nodes that Ray has within ``patience_s``.

    A job is resumed where something died, and that may have been a node, not yet back.

    Raises:
        DasError: see `require_resources`.
    """
    deadline, told = time.monotonic() + patience_s, False
    while True:
        try:
            return require_resources(config, ray.cluster_resources())
        except DasError as error:
            if time.monotonic() >= deadline:
                raise
            if not told:
                told = True
                line = f"{'ray':<12} waiting up to {patience_s:g} s for more nodes: {error}"
                print(line, file=sys.stderr, flush=True)
        time.sleep(min(1.0, patience_s))


def require_resources(config: Config, available: Mapping[str, float]) -> None:
    """Refuse a plan that some stage could never start: Ray would wait for ever.

    Raises:
        DasError: names the stage, what it needs, what there is, and the setting to change.
    """
    # An autoscaling cluster may have its workers still to come; only what is fixed is judged.
    if os.environ.get("DAS_AUTOSCALING"):
        return
    cpus, gpus = available.get("CPU", 0.0), available.get("GPU", 0.0)
    for stage, setting, need_cpus, need_gpus in demands(config):
        for what, need, have in (("CPUs", need_cpus, cpus), ("GPUs", need_gpus, gpus)):
            if need > have:
                raise DasError(
                    f"{stage} needs {need:g} {what} at once ({setting}), but Ray has {have:g}; "
                    f"lower {setting}, or give Ray more (ray.num_cpus on a laptop; "
                    "DAS_AUTOSCALING=1 if the cluster grows on demand)"
                )


def demands(config: Config) -> list[tuple[str, str, float, float]]:
    """(stage, setting, CPUs, GPUs) that must be free at once for each stage to start."""
    pools = [
        ("speech", "tts.pool", config.tts.pool, 0.0),
        ("features", "features", config.features, 0.0),
        ("transcripts", "serve.pool", config.serve.pool, _feeding(config)),
    ]
    found = [
        (stage, setting, pool.actors * pool.num_cpus + extra, pool.actors * pool.num_gpus)
        for stage, setting, pool, extra in pools
    ]
    fit = config.train
    found.append(
        (
            "adapters",
            "train.workers_per_domain x train.pool",
            fit.workers_per_domain * fit.pool.num_cpus,
            fit.workers_per_domain * fit.pool.num_gpus,
        )
    )
    llm = config.llm
    if any(domain.written for domain in config.domains):
        found.append(("texts", "llm", llm.engines * llm.num_cpus, llm.engines * llm.num_gpus))
    return found


def _feeding(config: Config) -> float:
    """CPUs of what feeds the replicas, in an evaluation or in bulk."""
    bulk = config.transcribe.readers * config.transcribe.reader_cpus
    return max(FEEDERS * FEEDER_CPUS, bulk)


def parallel_domains(config: Config, available: Mapping[str, float]) -> int:
    """Domains that can be trained side by side: ``train.pool.actors``, as far as Ray has room."""
    fit = config.train
    room = [float(fit.pool.actors)]
    for resource, each in (("CPU", fit.pool.num_cpus), ("GPU", fit.pool.num_gpus)):
        if each > 0 and not os.environ.get("DAS_AUTOSCALING"):
            room.append(available.get(resource, 0.0) // (each * fit.workers_per_domain))
    return max(1, int(min(room)))


class _RayLog(io.TextIOBase):
    """Lines that Ray prints, as records of the logger ``ray_jobs.ray``."""

    def write(self, text: str) -> int:
        """Log what is not blank."""
        if text.strip():
            logging.getLogger("ray_jobs.ray").info("%s", text.strip())
        return len(text)


def _joins() -> bool:
    """Whether there is a cluster to join."""
    return "RAY_ADDRESS" in os.environ or in_submitted_job()


def _init(config: Config, bulk: bool) -> None:
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    if not _joins():
        # "local": otherwise a cluster that someone started on this machine would be joined.
        options |= {"address": "local", "num_cpus": config.ray.num_cpus}
        # Its State API is what Ray Train's watchdog of a domain's controller asks: without it,
        # every domain waits 12 s for the watchdog to end, which could not have done its work.
        options |= {"include_dashboard": not bulk}
        for name, value in CALM.items():
            os.environ.setdefault(name, value)
        # Nobody reclaims this machine: one process less for each domain's training.
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    try:
        start_ray(options)
    except (ConnectionError, ray.exceptions.AuthenticationError) as error:
        raise DasError(
            f"the Ray cluster {os.environ.get('RAY_ADDRESS', 'auto')} cannot be joined: {error}; "
            "check RAY_ADDRESS and RAY_AUTH_TOKEN, or unset RAY_ADDRESS to start a local Ray"
        ) from error


def start_ray(options: Mapping[str, Any]) -> None:
    """`ray.init`, again where the node of a local Ray was not there in time, see `STARTS`.

    Raises:
        DasError: the last time, too.
    """
    for left in reversed(range(STARTS)):
        try:
            ray.init(**options)
            return
        except Exception as error:  # Ray gives this one no class of its own
            if "node timed out during startup" not in str(error):
                raise
            if not left:
                raise DasError(
                    f"a local Ray did not start in time, {STARTS} times in turn; stop other "
                    "work on this machine, or see /tmp/ray/session_latest/logs (raylet.err)"
                ) from error
        line = f"{'ray':<12} did not start in time, trying again"
        print(line, file=sys.stderr, flush=True)


def _quiet() -> None:
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False
    context.execution_no_progress_timeout_s = NO_PROGRESS_TIMEOUT_S
    for name in ("ray", "ray.data", "ray.train", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")  # read when vLLM is imported
