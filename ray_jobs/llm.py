"""Rows with chat messages through a pool of LLM engines to rows with replies."""

import logging
import os
from collections.abc import Callable
from typing import Any

import pyarrow as pa
from ray.data import ActorPoolStrategy, Dataset

from das_lib.config.tree import Llm
from das_lib.text.engine import FakeLlm, OpenAiLlm

# Every stage beside the engine is light, and the engine must never wait for a CPU that one of them
# holds: with whole CPUs the chain hangs on a machine of two.
HELPER_CPUS = 0.1
CONCURRENT_BATCHES = 4

ANSWER = {"reply": pa.string(), "error": pa.string(), "tokens": pa.int64()}

CPU_ENGINE: dict[str, Any] = {
    # Without AMX or AVX512-BF16, a CPU multiplies bfloat16 at a quarter of float32's rate.
    "dtype": "float32",
    "enforce_eager": True,
    "max_model_len": 2048,
    "distributed_executor_backend": "uni",  # with the environment below: two processes, not three
    # vLLM 0.32 dies of a seeded request whose prompt it cuts ("CPU Generator does not use offset").
    "enable_chunked_prefill": False,
    "enable_prefix_caching": True,
}
"""What vLLM is told on a CPU where ``llm.engine_kwargs`` says nothing else."""
CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "2", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}  # GiB
QUIET = {
    "VLLM_LOGGING_LEVEL": "ERROR",
    "VLLM_NO_USAGE_STATS": "1",
    "TQDM_DISABLE": "1",
    "TOKENIZERS_PARALLELISM": "false",
}


def processor(llm: Llm, model_path: str) -> Callable[[Dataset], Dataset]:
    """What adds the columns ``reply``, ``error`` and ``tokens`` to rows with ``id``, ``messages``.

    ``sampling_params`` of each row is what `das_lib.text.engine.sampling_params` gives. A row that
    the engine fails on has reply ``""`` and the reason in ``error``; all others have error ``""``.
    Both given columns are dropped, all others are kept. Order is not kept.
    """
    if llm.engine == "vllm":
        return _vllm(llm, model_path)
    return lambda rows: rows.map_batches(
        PythonEngine,
        batch_size=llm.batch_rows,
        batch_format="pyarrow",
        compute=ActorPoolStrategy(size=llm.engines),
        num_cpus=llm.num_cpus,
        fn_constructor_args=(llm,),
    )


class PythonEngine:
    """An engine without weights of its own, over batches."""

    def __init__(self, llm: Llm) -> None:
        self.replies = OpenAiLlm(llm).replies if llm.engine == "openai" else FakeLlm().replies

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Reply to each row."""
        rows = batch.select(["messages", "sampling_params"]).to_pylist()
        answers = self.replies([(row["messages"], row["sampling_params"]) for row in rows])
        kept = batch.drop_columns(["messages", "sampling_params"])
        for (name, kind), values in zip(ANSWER.items(), zip(*answers, strict=True), strict=True):
            kept = kept.append_column(name, pa.array(values, kind))
        return kept


def engine_config(llm: Llm, model_path: str) -> dict[str, Any]:
    """Keyword arguments of ray.data.llm's vLLM configuration.

    The engine's worker tokenizes and detokenizes, which leaves one helper (the chat template): each
    helper is a process that imports torch, and on two cores that time is the engine's.
    """
    config: dict[str, Any] = {
        "model_source": model_path,
        "batch_size": llm.batch_rows,
        "max_concurrent_batches": CONCURRENT_BATCHES,
        "concurrency": (llm.engines, llm.engines),
        "should_continue_on_error": True,
        "log_engine_metrics": False,
        "accelerator_type": None,
        "chat_template_stage": {"num_cpus": HELPER_CPUS},
        "tokenize_stage": False,
        "detokenize_stage": False,
        "engine_kwargs": {"disable_log_stats": True, **llm.engine_kwargs},
        "runtime_env": {"env_vars": dict(QUIET)},
    }
    if not llm.num_gpus:
        config["engine_kwargs"] = CPU_ENGINE | config["engine_kwargs"]
        threads = str(max(1, round(llm.num_cpus)))
        config["runtime_env"]["env_vars"] |= CPU_ENVIRONMENT | {"OMP_NUM_THREADS": threads}
    kwargs = config["engine_kwargs"]
    workers = kwargs.get("tensor_parallel_size", 1) * kwargs.get("pipeline_parallel_size", 1)
    share = {"CPU": llm.num_cpus / workers, "GPU": llm.num_gpus / workers}
    config["placement_group_config"] = {
        "bundle_per_worker": {name: amount for name, amount in share.items() if amount}
    }
    return config


def _vllm(llm: Llm, model_path: str) -> Callable[[Dataset], Dataset]:
    os.environ.update({name: value for name, value in QUIET.items() if name not in os.environ})
    logging.getLogger("ray.llm").addHandler(logging.NullHandler())  # else each adds a loud one
    for name in ("ray.llm", "ray.data", "ray._private.worker", "torch.utils.cpp_extension"):
        logging.getLogger(name).setLevel(logging.ERROR)
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    def run(rows: Dataset) -> Dataset:
        columns = [c for c in rows.columns() or [] if c not in ("messages", "sampling_params")]

        def finish(row: dict[str, Any]) -> dict[str, Any]:
            # Rows that failed come here too, with the columns that they had when they did.
            error = row.get("__inference_error__") or ""
            reply = "" if error else row["reply"]
            tokens = 0 if error else row["tokens"]
            answer = {"reply": reply, "error": error, "tokens": tokens}
            return {**{c: row[c] for c in columns}, **answer}

        process = build_processor(
            vLLMEngineProcessorConfig(**engine_config(llm, model_path)),
            preprocess=lambda row: {},
            postprocess=lambda row: {
                **{c: row[c] for c in columns},
                "reply": row["generated_text"],
                "tokens": row["num_generated_tokens"],
            },
            preprocess_map_kwargs={"num_cpus": HELPER_CPUS},
            postprocess_map_kwargs={"num_cpus": HELPER_CPUS},
        )
        return process(rows).map(finish, num_cpus=HELPER_CPUS)

    return run
