"""Text: the LLM writes instructions, then texts; or a domain's own texts are read.

python -m ray_jobs.generate --config configs/demo.yaml
"""

import sys
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pyarrow as pa
import ray.data

from das_lib.cards import CARD
from das_lib.config import Config, Domain
from das_lib.dataset import Dataset
from das_lib.errors import DasError, Reject, collect, raise_all
from das_lib.ids import row_id
from das_lib.models import resolve_model
from das_lib.progress import Progress
from das_lib.rows import Outcome
from das_lib.steps import Step, finished_rounds, llm_params, round_steps
from das_lib.text.card import FIGURES, base_vocabulary, card, figures
from das_lib.text.catalogues import read_catalogues
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
from das_lib.text.rubrics import improve_messages, improve_pattern, parse_improved
from das_lib.text.select import Selection
from ray_jobs import metrics
from ray_jobs.llm import processor
from ray_jobs.run import Run
from schemas.text import INSTRUCTIONS

Row = Mapping[str, Any]


def generate(run: Run) -> None:
    """Make the texts of every domain that lacks them.

    Raises:
        DasError: a domain has no texts, or too few; the others' are made all the same.
    """
    todo = run.pending(run.plan.texts)
    domains = [domain for domain in run.config.spoken if domain.name in todo]
    if not domains:
        return
    errors: list[DasError] = []
    written = choose_texts(run, [domain for domain in domains if domain.seeds], errors)
    started = time.monotonic()
    made: dict[str, int] = {}
    for domain in domains:
        with collect(errors):
            outcome = _texts(run, domain, written)
            count = outcome.rows.num_rows + len(outcome.rejects)
            if count:  # else the LLM gave nothing, which was collected above
                todo[domain.name].commit("00000", outcome, run.config.rows_per_block)
                describe(run, domain, outcome, todo[domain.name])
                made[domain.name] = count
    if made:
        run.finish({name: todo[name] for name in made}, made, started)
    run.plan_again()
    for name in made:
        with collect(errors):
            todo[name].require_rows()
    raise_all(errors)


def describe(run: Run, domain: Domain, outcome: Outcome, dataset: Dataset) -> None:
    """Write the card of a domain's texts and the figures in it."""
    keywords: set[str] = set()
    for steps in finished_rounds(run.config, domain, run.output):
        for block in run.dataset(steps[0]).tables(["keywords"]):
            keywords.update(*block["keywords"].to_pylist())
    found = figures(
        outcome,
        run.config.seed,
        keywords=sorted(keywords),
        catalogues=read_catalogues(domain),
        vocabulary=base_vocabulary(run.config.asr.model),
    )
    dataset.folder.write_json(FIGURES, found)
    text = card(domain.name, found, outcome.rows["text"].to_pylist(), run.config.seed)
    dataset.folder.write(CARD, text.encode())


def choose_texts(run: Run, domains: list[Domain], errors: list[DasError]) -> dict[str, Selection]:
    """What the LLM writes for each domain, in rounds until it suffices or hardly any comes.

    A domain for which the LLM writes nothing at all is named in ``errors``.
    """
    config, llm = run.config, llm_params(run.config)
    chosen = {d.name: Selection(d, config.text, config.asr.language) for d in domains}
    short = domains
    for number in range(config.text.max_rounds):
        short = [domain for domain in short if chosen[domain.name].missing]
        if not short:
            break
        steps = {domain.name: round_steps(config, domain, llm, number) for domain in short}
        for turn in range(config.text.improve + 2):
            made = {domain.name: steps[domain.name][turn] for domain in short}
            if turn == 0:
                write_instructions(run, short, made, number)
            elif turn <= config.text.improve:
                improve_instructions(run, made)
            else:
                write_replies(run, made)
            _require(run, made, errors if number == 0 else [])
            short = [d for d in short if run.dataset(made[d.name]).summary().rows_out]
        short = [d for d in short if _goes_on(run, steps[d.name][-1], chosen[d.name], number)]
    return chosen


def _require(run: Run, steps: Mapping[str, Step], errors: list[DasError]) -> None:
    for step in steps.values():
        with collect(errors):
            run.dataset(step).require_rows()


def _goes_on(run: Run, replies: Step, selection: Selection, number: int) -> bool:
    """Take a round's texts; whether another round is worth its while."""
    taken = selection.offer_replies(run.dataset(replies).tables(["id", "reply"]))
    text, domain = run.config.text, selection.domain
    if not selection.missing:
        return True
    last = number + 1 == text.max_rounds
    if not last and taken.share >= text.min_yield:
        return True
    bound = f"text.max_rounds={text.max_rounds}" if last else f"text.min_yield={text.min_yield:g}"
    print(
        f"texts        {domain.name}: {domain.utterances - selection.missing} of "
        f"{domain.utterances} after round {number + 1} ({bound}), which gave {taken.accepted} of "
        f"{taken.candidates} candidates ({taken.share:.1%}); add seeds or catalogues, or lower "
        "utterances",
        file=sys.stderr,
        flush=True,
    )
    return False


def write_instructions(
    run: Run, domains: list[Domain], steps: Mapping[str, Step], number: int
) -> None:
    """First LLM call: keywords and a tailored instruction from each variant of a seed."""
    count, seed = run.config.text.instructions_per_seed, run.config.seed
    inputs = {
        domain.name: seed_rows(
            domain, count, seed, number=number, catalogues=read_catalogues(domain)
        )
        for domain in domains
    }
    ask(run, steps, inputs, instruction_messages, instruction_pattern(), parse_instruction)


def improve_instructions(run: Run, steps: Mapping[str, Step]) -> None:
    """LLM calls between them: each instruction improved by a rubric of the LLM's own making."""
    inputs = _inputs(run, steps)
    ask(run, steps, inputs, improve_messages, improve_pattern(), parse_improved)


def write_replies(run: Run, steps: Mapping[str, Step]) -> None:
    """Last LLM call: texts for each instruction; the replies are kept as they are."""
    count = run.config.text.texts_per_reply
    ask(
        run,
        steps,
        _inputs(run, steps),
        lambda row: text_messages(row, count),
        texts_pattern(count, run.config.text),
        _keep_reply,
    )


def _inputs(run: Run, steps: Mapping[str, Step]) -> dict[str, pa.Table]:
    """What each step reads: instructions, in the columns that all their datasets have."""
    columns = INSTRUCTIONS.names
    return {name: run.source(step.deps[0]).read(columns) for name, step in steps.items()}


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
    rejected, tokens = 0, 0.0
    with Progress(stage, len(prompts), "prompts") as progress:
        for batch in _answers(run.config, prompts):
            for name, rows in batch.items():
                outcome = _outcome(rows, todo[name].schema, parse)
                todo[name].commit(row_id(*sorted(row["id"] for row in rows)), outcome)
                metrics.count(todo[name], outcome, "tokens")
                rejected += len(outcome.rejects)
                tokens += outcome.amount
                note = f"{tokens / progress.seconds:.0f} tokens/s"
                progress.advance(len(rows), note + (f"  {rejected} rejected" if rejected else ""))
    run.finish(todo, {name: inputs[name].num_rows for name in todo}, started)


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
    tokens = sum(row["tokens"] for row in rows)
    return Outcome(pa.Table.from_pylist(good, schema=schema), rejects, tokens)


def _keep_reply(row: Row, reply: str) -> dict[str, Any]:
    # One reply an instruction, so the instruction's id names the reply too.
    return {
        "id": row["id"],
        "domain": row["domain"],
        "instruction_id": row["id"],
        "reply": reply,
    }


def _texts(run: Run, domain: Domain, written: Mapping[str, Selection]) -> Outcome:
    if domain.texts is not None:
        return read_own_texts(domain.texts, domain, run.config.text, run.config.asr.language)
    return written[domain.name].outcome()


if __name__ == "__main__":
    from ray_jobs.cli import main

    sys.exit(main(["generate", *sys.argv[1:]]))
