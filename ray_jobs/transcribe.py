"""Transcripts: Ray Data feeds the recordings to the Serve replicas and commits what they answer.

python -m ray_jobs.transcribe --config configs/demo.yaml
"""

import sys
import time
from collections.abc import Mapping
from functools import partial

from das_lib.config.tree import UNRELATED, Pool
from das_lib.corpus import read_manifest, speech_corpus
from das_lib.dataset import Dataset
from das_lib.rows import Outcome
from das_lib.steps import SYNTHETIC, Step, synthetic_set
from das_lib.train.systems import BASE, DAS, assemblies, result_folder
from ray_jobs.calibrate import choose, with_tau
from ray_jobs.feed import Feed
from ray_jobs.flow import Item, run_items
from ray_jobs.run import Run
from ray_jobs.runtime import FEEDER_CPUS, FEEDERS
from ray_jobs.serve_asr import replicas


def transcribe(run: Run) -> None:
    """Make the corpora, then the transcripts of every system and test set that lack them.

    Where tau is to be chosen, it is chosen as soon as there is what it is chosen by.
    """
    if run.plan.calibration is not None:
        calibrate(run)
    else:
        collect(run)
    transcribe_with(run, run.plan.transcripts)


def calibrate(run: Run) -> None:
    """Transcribe with each margin, and what they are compared with, then choose tau."""
    plan = run.plan
    collect(run)
    if plan.calibration is None or run.dataset(plan.calibration).finished:
        return
    transcribe_with(run, plan.compared | plan.trials)
    choose(run, plan.calibration)


def transcribe_with(run: Run, steps: Mapping[tuple[str, str], Step]) -> None:
    """Make the transcripts, by (system, test set), that are lacking."""
    started = time.monotonic()
    todo = run.pending({step.name: step for step in steps.values()})
    if not todo:
        return
    keys = {step.name: key for key, step in steps.items()}  # name -> (system, test set)
    corpora = {name: run.source(step) for name, step in run.plan.corpora.items()}
    # `das` waits for the choice of tau; what is asked for before does not need it.
    config = with_tau(run) if DAS in {keys[name][0] for name in todo} else run.config
    for assembly in assemblies(
        {d: str(run.source(step).folder / "adapter") for d, step in run.plan.adapters.items()},
        {
            s: str(run.source(step).folder / result_folder(s))
            for s, step in run.plan.baselines.items()
        },
        run.config.calibration.taus,
    ):
        mine = {name: todo[name] for name in todo if keys[name][0] in assembly.systems}
        if not mine:
            continue
        systems = {name: keys[name][0] for name in mine}
        sets = {name: keys[name][1] for name in mine}
        with replicas(config, assembly.only(systems.values()), str(run.output)) as app:
            run_items(
                "transcripts",
                missing_blocks(corpora, mine, sets),
                partial(Feed, app, systems, (BASE, *assembly.adapters)),
                mine,
                Pool(actors=FEEDERS, num_cpus=FEEDER_CPUS),
            )
    rows_in = {name: corpora[keys[name][1]].summary().rows_out for name in todo}
    run.finish(todo, rows_in, started)


def collect(run: Run) -> None:
    """List the recordings of every test set that is not yet listed."""
    started = time.monotonic()
    todo = run.pending(run.plan.corpora)
    sets = {t.name: t for t in run.config.evaluation.test_sets}
    rows_in = {}
    for name, dataset in todo.items():
        if name in sets:
            given = sets[name]
            outcome, rows_in[name] = read_manifest(given.manifest, name, given.domain, given.limit)
        else:
            speech = run.source(run.plan.speech[name.removeprefix(SYNTHETIC)]).read()
            # Nothing is trained on unrelated texts.
            split = None if name == synthetic_set(UNRELATED) else "test"
            outcome = Outcome(speech_corpus(speech, name, split))
            rows_in[name] = outcome.rows.num_rows
        dataset.commit("00000", outcome, run.config.rows_per_block)
    run.finish(todo, rows_in, started)
    for dataset in todo.values():
        dataset.require_rows()


def missing_blocks(
    corpora: Mapping[str, Dataset], todo: Mapping[str, Dataset], test_sets: Mapping[str, str]
) -> list[Item]:
    """Each corpus block once, with all outputs that lack it: they share one encoder pass."""
    committed = {name: dataset.committed() for name, dataset in todo.items()}
    items = []
    for test_set, corpus in corpora.items():
        outputs = [name for name in todo if test_sets[name] == test_set]
        for block in corpus.blocks():
            lacking = tuple(name for name in outputs if block.name not in committed[name])
            if lacking:
                items.append(Item(block, lacking))
    return items


if __name__ == "__main__":
    from ray_jobs.cli import main

    sys.exit(main(["transcribe", *sys.argv[1:]]))
