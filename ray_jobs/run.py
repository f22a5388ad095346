"""A run: the configuration, its plan, the folder, and what every stage does the same way."""

import os
import platform
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

from das_lib.config import Config
from das_lib.dataset import Dataset, Summary
from das_lib.errors import DasError
from das_lib.plan import Plan, Step, build_plan
from das_lib.progress import format_seconds
from das_lib.storage import Folder
from ray_jobs.runtime import output_folder

# The job that makes a stage's data, for messages.
JOBS = {
    "instructions": "generate",
    "replies": "generate",
    "texts": "generate",
    "speech": "synthesize",
    "features": "train",
    "adapters": "train",
    "corpus": "transcribe",
    "transcripts": "transcribe",
    "report": "evaluate",
}


@dataclass(frozen=True)
class Run:
    """One configuration on its way through the stages."""

    config: Config

    @cached_property
    def plan(self) -> Plan:
        """All steps."""
        return build_plan(self.config)

    @cached_property
    def output(self) -> Folder:
        """Where all results go."""
        return output_folder(self.config)

    def dataset(self, step: Step) -> Dataset:
        """The step's dataset, finished or not."""
        return step.dataset(self.output)

    def source(self, step: Step) -> Dataset:
        """A finished dataset with rows, to read from.

        Raises:
            DasError: it is unfinished or has no rows; names the command to run.
        """
        dataset = self.dataset(step)
        if not dataset.finished:
            raise DasError(
                f"{step.stage}/{step.name} is not finished in {self.output}; run "
                f"`das {JOBS[step.stage]} -c CONFIG` first, or `das run -c CONFIG` for all stages"
            )
        dataset.require_rows()
        return dataset

    def pending(self, steps: Mapping[str, Step]) -> dict[str, Dataset]:
        """Datasets of the unfinished steps, begun; the finished ones are reported as up to date."""
        todo = {}
        for key, step in steps.items():
            dataset = self.dataset(step)
            if dataset.finished:
                self.tell(dataset.summary(), "up to date")
            else:
                dataset.begin(step.config)
                todo[key] = dataset
        return todo

    def finish(self, dataset: Dataset, rows_in: int, started: float) -> Summary:
        """Mark a dataset whole and print its summary line; ``started`` is `time.monotonic`."""
        summary = dataset.finish(rows_in, time.monotonic() - started, versions())
        self.tell(summary, "done")
        return summary

    def finish_adapter(self, dataset: Dataset, utterances: int, started: float) -> None:
        """Mark an adapter's folder whole; it holds no rows, it learnt from ``utterances``."""
        self.tell(dataset.mark(utterances, {}, time.monotonic() - started, versions()), "done")

    @staticmethod
    def tell(summary: Summary, state: str) -> None:
        """One summary line on standard error."""
        line = (
            f"{summary.stage:<12} {summary.name}: {state}, {summary.rows_out} of {summary.rows_in}"
        )
        if summary.rejected:
            reasons = ", ".join(f"{count} {reason}" for reason, count in summary.reasons.items())
            line += f", {summary.rejected} rejected ({reasons})"
        if state == "done":
            line += f", {format_seconds(summary.seconds)}"
        print(line, file=sys.stderr, flush=True)

    def summaries(self) -> list[Summary]:
        """Summaries of all finished steps, in the order of the work."""
        plan = self.plan
        steps = [
            *plan.instructions.values(),
            *plan.replies.values(),
            *plan.texts.values(),
            *plan.speech.values(),
            *plan.features.values(),
            *plan.adapters.values(),
            *plan.corpora.values(),
            *plan.transcripts.values(),
            plan.report,
        ]
        datasets = [self.dataset(step) for step in steps]
        return [dataset.summary() for dataset in datasets if dataset.finished]


def versions() -> dict[str, str]:
    """What the work was done with."""
    packages = ("ray", "torch", "transformers", "peft", "pyarrow")
    found = {package: version(package) for package in packages}
    return {
        **found,
        "das": version("das-asr"),
        "python": platform.python_version(),
        "cpus": str(os.cpu_count()),
    }
