"""Calibration: tau is chosen on held-out speech, and each adapter is judged.

das calibrate -c configs/demo.yaml
"""

import sys
import time

from das_lib.config import Config
from das_lib.config.tree import UNRELATED
from das_lib.errors import DasError
from das_lib.evaluation.calibrate import NO_ADAPTER, choose_tau, verdicts
from das_lib.evaluation.report import wer_table
from das_lib.rows import Outcome
from das_lib.steps import SYNTHETIC, Step
from ray_jobs.evaluate import measured
from ray_jobs.run import Run

CHOICE = "choice.json"


def choose(run: Run, step: Step) -> None:
    """Measure what was transcribed, and write down the margin.

    Raises:
        DasError: the held-out or the unrelated speech has no reference text to measure by.
    """
    started = time.monotonic()
    dataset = run.dataset(step)
    dataset.begin(step.config)
    steps = run.plan.compared | run.plan.trials
    results, changes = measured(run, steps)
    if lacking := steps.keys() - results.keys():
        names = ", ".join(sorted({name for _, name in lacking}))
        raise DasError(f"{names}: no word to measure tau by; raise held_out or utterances")
    table = wer_table(results, changes)
    dataset.commit("00000", Outcome(table))
    domains = {name.removeprefix(SYNTHETIC): name for _, name in sorted(run.plan.trials)}
    unrelated = domains.pop(UNRELATED)
    settings = run.config.calibration
    found = choose_tau(results, [*domains.values()], unrelated, settings.taus, settings.max_rise)
    choice = {
        "tau": found.tau,
        "in_domain": {"base": found.base_in_domain, "das": found.in_domain},
        "unrelated": {"base": found.base_unrelated, "das": found.unrelated},
        "adapters": verdicts(changes, domains),
    }
    dataset.folder.write_json(CHOICE, choice)
    run.finish({step.name: dataset}, {step.name: table.num_rows}, started)
    show_choice(run)


def with_tau(run: Run) -> Config:
    """The configuration with the margin that was chosen, where it was left open."""
    if run.config.adml.tau != "auto" or run.plan.calibration is None:
        return run.config
    tau = run.source(run.plan.calibration).folder.read_json(CHOICE)["tau"]
    return run.config.model_copy(update={"adml": run.config.adml.model_copy(update={"tau": tau})})


def show_choice(run: Run) -> None:
    """Say on standard error which margin was chosen, and why."""
    assert run.plan.calibration is not None
    choice = run.dataset(run.plan.calibration).folder.read_json(CHOICE)
    wer = {
        what: f"{100 * choice[what]['base']:.2f} -> {100 * choice[what]['das']:.2f} %"
        for what in ("in_domain", "unrelated")
    }
    why = "no margin helps without harm: the base decides alone, "
    print(
        f"calibration  adml.tau: {choice['tau']:g} ({why if choice['tau'] == NO_ADAPTER else ''}"
        f"WER in domain {wer['in_domain']}, unrelated {wer['unrelated']}); adapters alone: "
        + ", ".join(f"{name} {verdict}" for name, verdict in choice["adapters"].items()),
        file=sys.stderr,
        flush=True,
    )


if __name__ == "__main__":
    from ray_jobs.cli import main

    sys.exit(main(["calibrate", *sys.argv[1:]]))
