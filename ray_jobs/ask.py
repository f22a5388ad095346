"""Rows of a step as prompts to the LLM, and its replies as rows, committed as they come."""

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from das_lib.config.tree import Llm
from das_lib.dataset import Dataset
from das_lib.errors import Reject
from das_lib.ids import row_id
from das_lib.progress import Progress
from das_lib.rows import Outcome
from das_lib.steps import Step
from das_lib.text.engine import sampling_params
from das_lib.text.recording import Recorder
from ray_jobs import metrics
from ray_jobs.llm import EnginePool
from ray_jobs.run import Run

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Call:
    """What one kind of prompt is."""

    messages: Callable[[Row], list[dict[str, str]]]
    """The chat for a row."""
    pattern: str
    """Regular expression that binds the reply."""
    parse: Callable[[Row, str], dict[str, Any] | Reject]
    """Total: the row that a reply makes, or why there is none."""


def ask(
    run: Run,
    engines: EnginePool,
    steps: Mapping[str, Step],
    inputs: Mapping[str, pa.Table],
    call: Call,
) -> None:
    """Send the input rows of all unfinished steps through the engines, commit what they say.

    Batches are committed as they come, under a name made of their rows' ids; a resumed run asks
    only for the rows that are in no committed batch.
    """
    started = time.monotonic()
    todo = run.pending(steps)
    if not todo:
        return
    prompts = _prompts(engines.llm, {name: inputs[name] for name in todo}, todo, call)
    stage = next(iter(steps.values())).stage
    rejected, tokens = 0, 0.0
    with Progress(stage, len(prompts), "prompts") as progress:
        for batch in _answers(engines, prompts):
            for name, rows in batch.items():
                outcome = _outcome(rows, todo[name].schema, call)
                todo[name].commit(row_id(*sorted(row["id"] for row in rows)), outcome)
                metrics.count(todo[name], outcome, "tokens")
                rejected += len(outcome.rejects)
                tokens += outcome.amount
                note = f"{tokens / progress.seconds:.0f} tokens/s"
                progress.advance(len(rows), note + (f"  {rejected} rejected" if rejected else ""))
    run.finish(todo, {name: inputs[name].num_rows for name in todo}, started)


def _prompts(
    llm: Llm,
    inputs: Mapping[str, pa.Table],
    outputs: Mapping[str, Dataset],
    call: Call,
) -> list[dict[str, Any]]:
    """Rows that no committed batch holds yet, with what the engine needs."""
    prompts = []
    for name, table in inputs.items():
        done = outputs[name].committed_ids()
        for row in table.to_pylist():
            if row["id"] not in done:
                params = sampling_params(llm, row, call.pattern)
                prompts.append({**row, "messages": call.messages(row), "sampling_params": params})
    return prompts


def _answers(
    engines: EnginePool, prompts: list[dict[str, Any]]
) -> Iterable[dict[str, list[dict[str, Any]]]]:
    """Batches of answered prompts as the engines finish them, by domain."""
    if not prompts:
        return
    recorder = Recorder(engines.llm.record, prompts) if engines.llm.record else None
    answered = engines.answer(prompts)
    for batch in answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        by_domain: dict[str, list[dict[str, Any]]] = {}
        rows = batch.to_pylist()  # type: ignore[union-attr]
        if recorder is not None:
            recorder.add(rows)
        for row in rows:
            by_domain.setdefault(row["domain"], []).append(row)
        yield by_domain


def _outcome(
    rows: list[dict[str, Any]],
    schema: pa.Schema,
    call: Call,
) -> Outcome:
    parsed = [
        Reject(row["id"], "llm-failed", row["error"][:200])
        if row["error"]
        else call.parse(row, row["reply"])
        for row in rows
    ]
    good = [row for row in parsed if not isinstance(row, Reject)]
    rejects = [row for row in parsed if isinstance(row, Reject)]
    tokens = sum(row["tokens"] for row in rows)
    return Outcome(pa.Table.from_pylist(good, schema=schema), rejects, tokens)
