"""Rows with chat messages through one pool of LLM engines to rows with replies."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Self

import pyarrow as pa
import ray.data
from ray.data import ActorPoolStrategy, Dataset

from das_lib.config.tree import Llm
from das_lib.memory import KEEP_FREED_MEMORY
from das_lib.models import resolve_model
from das_lib.text.engine import FakeLlm, OpenAiLlm
from das_lib.text.recording import RecordedLlm

# Every stage beside the engine is light, and the engine must never wait for a CPU that one of them
# holds: with whole CPUs the chain hangs on a machine of two.
HELPER_CPUS = 0.1
CONCURRENT_BATCHES = 8
HEALTH_TIMEOUT_S = 600  # a step of a large batch on a busy CPU answers nobody meanwhile

ANSWER = {"reply": pa.string(), "error": pa.string(), "tokens": pa.int64()}

ENGINE: dict[str, Any] = {
    "disable_log_stats": True,
    "generation_config": "vllm",  # a model's own defaults would change what is not asked for
}
CPU_ENGINE: dict[str, Any] = {
    # Without AMX or AVX512-BF16, a CPU multiplies bfloat16 at a quarter of float32's rate.
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 2048,
    # vLLM's own numbers depend on who asks; with more sequences the cache runs out of room.
    "max_num_seqs": 128,
    "max_num_batched_tokens": 2048,
    "distributed_executor_backend": "uni",  # Ray has another opinion: see llm_server.OneProcess
    # vLLM 0.32 dies of a seeded request whose prompt it cuts ("CPU Generator does not use offset").
    "enable_chunked_prefill": False,
    "enable_prefix_caching": True,
}
"""What vLLM is told on a CPU where ``llm.engine_kwargs`` says nothing else."""
CPU_ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "2",  # GiB
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    # Else every engine binds its threads to the same cores, and leaves one of them idle.
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    **KEEP_FREED_MEMORY,  # the sampler's tensors are of tens of megabytes
}
QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


class EnginePool:
    """Engines that all LLM calls share, as long as the context lasts.

    They start at the first call. vLLM's are replicas of a Ray Serve app, which ray.data.llm feeds:
    a Dataset's own actors end with it, and loading a model takes longer than many a call.
    """

    def __init__(self, llm: Llm, owner: str) -> None:
        """Engines of the job whose output ``owner`` is, see `ray_jobs.apps.app_name`."""
        self.llm, self._owner = llm, owner
        self._running: tuple[str, str] | None = None  # app and deployment

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def stop(self) -> None:
        """Give their resources back; the next call starts them again."""
        if self._running is not None:
            from ray_jobs.apps import end_app

            end_app(self._running[0])
            self._running = None

    def answer(self, prompts: Sequence[Mapping[str, Any]]) -> Dataset:
        """Add the columns ``reply``, ``error`` and ``tokens`` to rows with ``id``, ``messages``.

        At least one row is needed.
        ``sampling_params`` of each row is what `das_lib.text.engine.sampling_params` gives. A row
        that the engine fails on has reply ``""`` and the reason in ``error``; all others have error
        ``""``. Both given columns are dropped, all others are kept. Order is not kept.
        """
        # A block is a batch: Ray would make up to 200 of them, and each is a task or two.
        blocks = -(-len(prompts) // self.llm.batch_rows)
        rows = ray.data.from_items(list(prompts), override_num_blocks=blocks)
        if self.llm.engine == "vllm":
            return self._through_vllm(rows)
        return rows.map_batches(
            PythonEngine,
            batch_size=self.llm.batch_rows,
            batch_format="pyarrow",
            compute=ActorPoolStrategy(size=self.llm.engines),
            num_cpus=self.llm.num_cpus,
            fn_constructor_args=(self.llm,),
        )

    def _through_vllm(self, rows: Dataset) -> Dataset:
        if self._running is None:
            self._running = _start(self.llm, self._owner)
        app, deployment = self._running
        from ray.data.llm import ServeDeploymentProcessorConfig, build_processor

        columns = [c for c in rows.columns() or [] if c not in ("messages", "sampling_params")]

        def finish(row: dict[str, Any]) -> dict[str, Any]:
            # Rows that failed come here too, with the columns that they had when they did.
            error = row.get("__inference_error__") or row.get("error") or ""
            reply, tokens = ("", 0) if error else (row["reply"], row["tokens"])
            return {
                **{c: row[c] for c in columns},
                "reply": reply,
                "error": error,
                "tokens": tokens,
            }

        process = build_processor(
            ServeDeploymentProcessorConfig(
                deployment_name=deployment,
                app_name=app,
                batch_size=self.llm.batch_rows,
                concurrency=self.llm.engines,
                should_continue_on_error=True,
            ),
            preprocess=lambda row: {
                "method": "ask",
                "request_kwargs": {
                    "messages": row["messages"],
                    "sampling_params": row["sampling_params"],
                },
            },
            postprocess=lambda row: {c: row[c] for c in (*columns, *ANSWER)},
            preprocess_map_kwargs={"num_cpus": HELPER_CPUS},
            postprocess_map_kwargs={"num_cpus": HELPER_CPUS},
        )
        for name in process.list_stage_names():  # it only waits, and would hold a whole CPU
            waits = {"num_cpus": HELPER_CPUS, "max_concurrency": CONCURRENT_BATCHES}
            process.get_stage_by_name(name).map_batches_kwargs.update(waits)
        return process(rows).map(finish, num_cpus=HELPER_CPUS)


class PythonEngine:
    """An engine without weights of its own, over batches."""

    def __init__(self, llm: Llm) -> None:
        if llm.engine == "openai":
            self.replies = OpenAiLlm(llm).replies
        elif llm.recording is not None:
            self.replies = RecordedLlm(llm.recording).replies
        else:
            self.replies = FakeLlm().replies

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Reply to each row."""
        rows = batch.select(["messages", "sampling_params"]).to_pylist()
        answers = self.replies([(row["messages"], row["sampling_params"]) for row in rows])
        kept = batch.drop_columns(["messages", "sampling_params"])
        for (name, kind), values in zip(ANSWER.items(), zip(*answers, strict=True), strict=True):
            kept = kept.append_column(name, pa.array(values, kind))
        return kept


def cpu_environment(llm: Llm) -> dict[str, str]:
    """What a process that holds vLLM on a CPU has in its environment from its beginning."""
    threads = str(max(1, round(llm.num_cpus)))
    return QUIET | CPU_ENVIRONMENT | {"OMP_NUM_THREADS": threads}


def engine_config(llm: Llm, model_path: str) -> dict[str, Any]:
    """Keyword arguments of Ray Serve's configuration of vLLM."""
    from ray_jobs.apps import ROUND_ROBIN

    kwargs = ENGINE | llm.engine_kwargs
    environment = dict(QUIET)
    if not llm.num_gpus:
        kwargs = CPU_ENGINE | kwargs
        environment = cpu_environment(llm)
    workers = kwargs.get("tensor_parallel_size", 1) * kwargs.get("pipeline_parallel_size", 1)
    share = {"CPU": llm.num_cpus / workers, "GPU": llm.num_gpus / workers}
    return {
        "model_loading_config": {"model_id": "das", "model_source": model_path},
        "engine_kwargs": kwargs,
        "accelerator_type": None,
        "log_engine_metrics": False,
        "runtime_env": {"env_vars": environment},
        "placement_group_config": {
            "bundle_per_worker": {name: amount for name, amount in share.items() if amount}
        },
        "deployment_config": {
            "num_replicas": llm.engines,
            "max_ongoing_requests": llm.batch_rows * CONCURRENT_BATCHES,
            "ray_actor_options": {"num_cpus": 0},  # the workers' bundles have them
            "health_check_timeout_s": HEALTH_TIMEOUT_S,
            "request_router_config": ROUND_ROBIN,
        },
    }


def _start(llm: Llm, owner: str) -> tuple[str, str]:
    """Start the replicas; the names of their app and its deployment."""
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    with _silence():
        from ray import serve
        from ray.serve.llm import LLMConfig, build_llm_deployment

        from ray_jobs.apps import app_name
        from ray_jobs.llm_server import LlmServer

        config = engine_config(llm, str(resolve_model(llm.model)))
        app = build_llm_deployment(LLMConfig(**config, server_cls=LlmServer))
        serve.start(proxy_location="Disabled")
        name = app_name("llm", owner)
        serve.run(app, name=name, route_prefix=None)
        (deployment,) = serve.status().applications[name].deployments
    return name, deployment


@contextmanager
def _silence() -> Iterator[None]:
    """Errors only; and no handler that an import gives to the root logger stays."""
    handlers, level = logging.root.handlers[:], logging.root.level
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        yield
    finally:
        logging.disable(disabled)
        logging.root.handlers[:] = handlers
        logging.root.setLevel(level)
