"""Evaluation: WER of every system on every test set, as a table, JSON and Markdown.

python -m ray_jobs.evaluate --config configs/demo.yaml
"""

import json
import sys
import time
from collections import Counter
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from das_lib.dataset import total_by_stage
from das_lib.evaluation.bootstrap import Change
from das_lib.evaluation.report import (
    markdown_report,
    measure,
    measure_change,
    report_json,
    text_table,
    wer_table,
)
from das_lib.evaluation.wer import Wer
from das_lib.rows import Outcome
from das_lib.steps import Step
from das_lib.train.systems import BASE, DAS
from ray_jobs.run import Run


def evaluate(run: Run) -> None:
    """Measure what was transcribed and write the report."""
    started = time.monotonic()
    step = run.plan.report
    dataset = run.dataset(step)
    if not dataset.finished:
        dataset.begin(step.config)
        results, changes = measured(run, run.plan.transcripts)
        choices = {
            test_set: Counter(_branches(run, run.plan.transcripts[DAS, test_set]))
            for system, test_set in results
            if system == DAS
        }
        table = wer_table(results, changes)
        dataset.commit("00000", Outcome(table))
        stages = total_by_stage(run.summaries())
        report = markdown_report(run.config.name, results, stages, choices, changes)
        dataset.folder.write("report.md", report.encode())
        dataset.folder.write_json("report.json", report_json(results, stages, changes))
        run.finish({step.name: dataset}, {step.name: table.num_rows}, started)
    else:
        run.tell("up to date", [dataset.summary()])


def measured(
    run: Run, steps: Mapping[tuple[str, str], Step]
) -> tuple[dict[tuple[str, str], Wer], dict[tuple[str, str], Change]]:
    """WER by (system, test set), and its change against the base, which stands before the others.

    Test sets without a reference text are named and left out.
    """
    results: dict[tuple[str, str], Wer] = {}
    changes: dict[tuple[str, str], Change] = {}
    bases: dict[str, pa.Table] = {}
    for (system, test_set), source in steps.items():
        transcripts = run.source(source).read(["id", "reference", "text"])
        wer = measure(transcripts)
        if wer is None:
            print(f"report       {test_set}: no reference text, not measured", file=sys.stderr)
            continue
        results[system, test_set] = wer
        if system == BASE:
            bases[test_set] = transcripts
        elif change := measure_change(bases[test_set], transcripts):
            changes[system, test_set] = change
    return results, changes


def show(run: Run) -> None:
    """Print the table and the report's path on standard output."""
    dataset = run.dataset(run.plan.report)
    print(text_table(load_results(run)))
    print(f"report: {dataset.folder.path('report.md')}", flush=True)


def load_results(run: Run) -> dict[tuple[str, str], Wer]:
    """The finished report's measurements by (system, test set)."""
    counts = ("substitutions", "deletions", "insertions", "words", "utterances")
    return {(r["system"], r["test_set"]): Wer(**{c: r[c] for c in counts}) for r in _rows(run)}


def load_changes(run: Run) -> dict[tuple[str, str], Change]:
    """The finished report's changes against the base by (system, test set)."""
    return {
        (r["system"], r["test_set"]): Change(
            relative=r["change"], low=r["change_low"], high=r["change_high"]
        )
        for r in _rows(run)
        if r["change"] is not None
    }


def write_json(run: Run, path: str) -> None:
    """Write the report's JSON, with the stages of this run, to a file of the user's choice."""
    stages = total_by_stage(run.summaries())
    value = report_json(load_results(run), stages, load_changes(run))
    with open(path, "w", encoding="utf-8") as file:
        json.dump(value, file, indent=2)


def _branches(run: Run, step: Step) -> list[str]:
    chosen = run.source(step).read(["branches"])["branches"]
    return chosen.combine_chunks().flatten().to_pylist()


def _rows(run: Run) -> list[dict[str, Any]]:
    return run.dataset(run.plan.report).read().to_pylist()


if __name__ == "__main__":
    from ray_jobs.cli import main

    sys.exit(main(["evaluate", *sys.argv[1:]]))
