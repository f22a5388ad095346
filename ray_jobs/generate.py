"""Text: the LLM writes instructions, then texts; or a domain's own texts are read.

python -m ray_jobs.generate --config configs/demo.yaml
"""

import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pyarrow as pa

from das_lib.cards import CARD
from das_lib.config import Config, Domain
from das_lib.config.data import Text
from das_lib.dataset import Dataset
from das_lib.errors import DasError, collect, raise_all
from das_lib.models import resolve_model
from das_lib.rounds import Round, finished_rounds, round_of
from das_lib.rows import Outcome
from das_lib.steps import Step
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
from das_lib.text.contrast import (
    judge_messages,
    judge_pattern,
    kept_ids,
    pairs,
    parse_judgement,
)
from das_lib.text.own_instructions import read_own_instructions
from das_lib.text.own_texts import read_own_texts
from das_lib.text.relevance import Embed, Relevance, describe_domain, sentence_embedder, topics
from das_lib.text.rubrics import improve_messages, improve_pattern, parse_improved
from das_lib.text.select import Selection
from ray_jobs.ask import Call, ask
from ray_jobs.llm import EnginePool
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
    written = choose_texts(run, [domain for domain in domains if domain.written], errors)
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
    for finished in finished_rounds(run.config, domain, run.output):
        for block in run.dataset(finished.instructions).tables(["keywords"]):
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
    config = run.config
    embed = embedder(config.text) if domains else None
    chosen = {domain.name: selection(config, domain, embed) for domain in domains}
    with EnginePool(config.llm, str(run.output)) as engines:
        short = domains
        for number in range(config.text.max_rounds):
            short = [domain for domain in short if chosen[domain.name].missing]
            if not short:
                break
            rounds = {domain.name: round_of(config, domain, number) for domain in short}
            short = write_round(run, engines, short, rounds, number, errors)
            short = [d for d in short if _goes_on(run, rounds[d.name], chosen[d.name], number)]
    return chosen


def embedder(text: Text) -> Embed | None:
    """What tells texts on their domain from others, where it is wanted."""
    if text.on_domain is None:
        return None
    return sentence_embedder(resolve_model(text.on_domain.model))


def selection(config: Config, domain: Domain, embed: Embed | None) -> Selection:
    """What chooses a domain's texts among those that the LLM writes."""
    relevance = None if embed is None else Relevance(embed, describe_domain(domain), topics())
    return Selection(domain, config.text, config.asr.language, relevance)


def write_round(
    run: Run,
    engines: EnginePool,
    domains: list[Domain],
    rounds: Mapping[str, Round],
    number: int,
    errors: list[DasError],
) -> list[Domain]:
    """The LLM's steps of one round; the domains for which each of them gave something."""
    text = run.config.text
    for turn in range(len(rounds[domains[0].name].steps)):
        steps = {domain.name: rounds[domain.name].steps[turn] for domain in domains}
        stage = steps[domains[0].name].stage
        if stage == "instructions":
            write_instructions(run, engines, domains, steps, number)
        elif stage == "improved":
            call = Call(improve_messages, improve_pattern(), parse_improved)
            ask(run, engines, steps, _instructions(run, steps), call)
        elif stage == "replies":
            write_replies(run, engines, steps)
        elif stage == "target_replies" and text.contrast is not None:
            engines.stop()  # a machine may have room for one of them only
            with EnginePool(text.contrast.llm, str(run.output)) as target:
                write_replies(run, target, steps)
        else:
            call = Call(judge_messages, judge_pattern(), parse_judgement)
            ask(run, engines, steps, _pairs(run, steps), call)
        _require(run, steps, errors if number == 0 else [])
        domains = [d for d in domains if run.dataset(steps[d.name]).summary().rows_out]
        if not domains:
            break
    return domains


def _require(run: Run, steps: Mapping[str, Step], errors: list[DasError]) -> None:
    for step in steps.values():
        with collect(errors):
            run.dataset(step).require_rows()


def _goes_on(run: Run, made: Round, selection: Selection, number: int) -> bool:
    """Take a round's texts; whether another round is worth its while."""
    text, domain = run.config.text, selection.domain
    kept = None
    if text.contrast is not None:
        kept = kept_ids(run.dataset(made.contrast[-1]).tables(), text.contrast.keep)
    taken = selection.offer_replies(run.dataset(made.replies).tables(["id", "reply"]), kept)
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
    run: Run, engines: EnginePool, domains: list[Domain], steps: Mapping[str, Step], number: int
) -> None:
    """First LLM call: keywords and a tailored instruction from each variant of a seed.

    A domain's own instructions are taken from its file instead.
    """
    count, seed = run.config.text.instructions_per_seed, run.config.seed
    inputs, own = {}, {}
    for domain in domains:
        draws: Any = {"number": number, "catalogues": read_catalogues(domain)}
        if domain.instructions is None:
            inputs[domain.name] = seed_rows(domain, count, seed, **draws)
        else:
            own[domain.name] = partial(read_own_instructions, domain, seed, **draws)
    take_own(run, {name: steps[name] for name in own}, own)
    asked = {name: steps[name] for name in inputs}
    call = Call(instruction_messages, instruction_pattern(), parse_instruction)
    ask(run, engines, asked, inputs, call)


def take_own(run: Run, steps: Mapping[str, Step], own: Mapping[str, Callable[[], Outcome]]) -> None:
    """Commit the instructions that domains bring along."""
    started = time.monotonic()
    todo, counts = run.pending(steps), {}
    for name, dataset in todo.items():
        outcome = own[name]()
        dataset.commit("00000", outcome, run.config.rows_per_block)
        counts[name] = outcome.rows.num_rows + len(outcome.rejects)
    if todo:
        run.finish(todo, counts, started)


def write_replies(run: Run, engines: EnginePool, steps: Mapping[str, Step]) -> None:
    """Texts for each instruction; the replies are kept as they are."""
    count = run.config.text.texts_per_reply
    call = Call(
        lambda row: text_messages(row, count), texts_pattern(count, run.config.text), _keep_reply
    )
    ask(run, engines, steps, _instructions(run, steps), call)


def _instructions(run: Run, steps: Mapping[str, Step]) -> dict[str, pa.Table]:
    """What each step reads: instructions, in the columns that all their datasets have."""
    columns = INSTRUCTIONS.names
    return {name: run.source(step.deps[0]).read(columns) for name, step in steps.items()}


def _pairs(run: Run, steps: Mapping[str, Step]) -> dict[str, pa.Table]:
    """What is judged: for each instruction, the replies of both models."""
    asked = _instructions(run, steps)
    made = {}
    for name, step in steps.items():
        strong, target = (run.source(replies).read(["id", "reply"]) for replies in step.deps[1:])
        made[name] = pairs(asked[name], strong, target)
    return made


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
