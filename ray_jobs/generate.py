"""Text: the LLM writes instructions, then texts; or a domain's own texts are read.

python -m ray_jobs.generate --config configs/demo.yaml
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import ray.data

from das_lib.config import Config, Domain
from das_lib.dataset import Dataset
from das_lib.errors import Reject
from das_lib.ids import row_id
from das_lib.models import resolve_model
from das_lib.progress import Progress
from das_lib.rows import Outcome
from das_lib.steps import Step
from das_lib.text.codec import (
    instruction_messages,
    instruction_pattern,
    parse_instruction,
    seed_rows,
    text_messages,
    texts_pattern,
)
from das_lib.text.engine import sampling_params
from das_lib.text.own_texts import read_own_texts
from das_lib.text.select import build_texts
from ray_jobs.llm import processor
from ray_jobs.run import Run

Row = Mapping[str, Any]


def generate(run: Run) -> None:
    """Make the texts of every domain that lacks them."""
    todo = run.pending(run.plan.texts)
    domains = [domain for domain in run.config.spoken if domain.name in todo]
    written = [domain for domain in domains if domain.seeds]
    if written:
        write_instructions(run, written)
        write_replies(run, written)
    if not domains:
        return
    started = time.monotonic()
    rows_in = {}
    for domain in domains:
        outcome, rows_in[domain.name] = _texts(run, domain)
        todo[domain.name].commit("00000", outcome, run.config.rows_per_block)
    run.finish(todo, rows_in, started)
    run.plan_again()
    for dataset in todo.values():
        dataset.require_rows()


def write_instructions(run: Run, domains: list[Domain]) -> None:
    """First LLM call: keywords and a tailored instruction from each variant of a seed."""
    config = run.config
    ask(
        run,
        {domain.name: run.plan.instructions[domain.name] for domain in domains},
        {d.name: seed_rows(d, config.text.instructions_per_seed, config.seed) for d in domains},
        instruction_messages,
        instruction_pattern(),
        parse_instruction,
    )


def write_replies(run: Run, domains: list[Domain]) -> None:
    """Second LLM call: texts for each instruction; the replies are kept as they are."""
    count = run.config.text.texts_per_reply
    steps = {domain.name: run.plan.replies[domain.name] for domain in domains}
    ask(
        run,
        steps,
        {domain.name: run.source(run.plan.instructions[domain.name]).read() for domain in domains},
        lambda row: text_messages(row, count),
        texts_pattern(count, run.config.text),
        _keep_reply,
    )


def ask(
    run: Run,
    steps: Mapping[str, Step],
    inputs: Mapping[str, pa.Table],
    messages: Callable[[Row], list[dict[str, str]]],
    pattern: str,
    parse: Callable[[Row, str], dict[str, Any] | Reject],
) -> None:
    """Send the input rows of all unfinished steps through one engine pool, commit what it says.

    Batches are committed as they come, under a name made of their rows' ids; a resumed run asks
    only for the rows that are in no committed batch.
    """
    started = time.monotonic()
    todo = run.pending(steps)
    if not todo:
        return
    prompts = _prompts(run.config, {name: inputs[name] for name in todo}, todo, messages, pattern)
    stage = next(iter(steps.values())).stage
    rejected = 0
    with Progress(stage, len(prompts), "prompts") as progress:
        for batch in _answers(run.config, prompts):
            for name, rows in batch.items():
                outcome = _outcome(rows, todo[name].schema, parse)
                todo[name].commit(row_id(*sorted(row["id"] for row in rows)), outcome)
                rejected += len(outcome.rejects)
                progress.advance(len(rows), f"{rejected} rejected" if rejected else "")
    run.finish(todo, {name: inputs[name].num_rows for name in todo}, started)
    for dataset in todo.values():
        dataset.require_rows()


def _prompts(
    config: Config,
    inputs: Mapping[str, pa.Table],
    outputs: Mapping[str, Dataset],
    messages: Callable[[Row], list[dict[str, str]]],
    pattern: str,
) -> list[dict[str, Any]]:
    """Rows that no committed batch holds yet, with what the engine needs."""
    prompts = []
    for name, table in inputs.items():
        done = outputs[name].committed_ids()
        for row in table.to_pylist():
            if row["id"] not in done:
                params = sampling_params(config.llm, row, pattern)
                prompts.append({**row, "messages": messages(row), "sampling_params": params})
    return prompts


def _answers(
    config: Config, prompts: list[dict[str, Any]]
) -> Iterable[dict[str, list[dict[str, Any]]]]:
    """Batches of answered prompts as the engines finish them, by domain."""
    if not prompts:
        return
    model = resolve_model(config.llm.model) if config.llm.engine == "vllm" else ""
    answered = processor(config.llm, str(model))(ray.data.from_items(prompts))
    for batch in answered.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0):
        by_domain: dict[str, list[dict[str, Any]]] = {}
        for row in batch.to_pylist():  # type: ignore[union-attr]
            by_domain.setdefault(row["domain"], []).append(row)
        yield by_domain


def _outcome(
    rows: list[dict[str, Any]],
    schema: pa.Schema,
    parse: Callable[[Row, str], dict[str, Any] | Reject],
) -> Outcome:
    parsed = [
        Reject(row["id"], "llm-failed", row["error"][:200])
        if row["error"]
        else parse(row, row["reply"])
        for row in rows
    ]
    good = [row for row in parsed if not isinstance(row, Reject)]
    rejects = [row for row in parsed if isinstance(row, Reject)]
    return Outcome(pa.Table.from_pylist(good, schema=schema), rejects)


def _keep_reply(row: Row, reply: str) -> dict[str, Any]:
    # One reply an instruction, so the instruction's id names the reply too.
    return {
        "id": row["id"],
        "domain": row["domain"],
        "instruction_id": row["id"],
        "reply": reply,
    }


def _texts(run: Run, domain: Domain) -> tuple[Outcome, int]:
    if domain.texts is not None:
        outcome = read_own_texts(domain.texts, domain, run.config.text)
        return outcome, outcome.rows.num_rows + len(outcome.rejects)
    replies = run.source(run.plan.replies[domain.name]).read()
    return build_texts(domain, replies, run.config.text)


if __name__ == "__main__":
    from ray_jobs.cli import main

    sys.exit(main(["generate", *sys.argv[1:]]))
