"""A run: the configuration, its plan, the folder, and what every stage does the same way."""

import os
import platform
import sys
import time
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version

from das_lib.config import Config
from das_lib.dataset import Dataset, Summary, total_by_stage
from das_lib.errors import DasError
from das_lib.plan import Plan, plan_run
from das_lib.progress import format_seconds
from das_lib.steps import Step
from das_lib.storage import Folder
from ray_jobs.runtime import output_folder

# The job that makes a stage's data, for messages.
JOBS = {
    "instructions": "generate",
    "improved": "generate",
    "replies": "generate",
    "target_replies": "generate",
    "judgements": "generate",
    "texts": "generate",
    "speech": "synthesize",
    "features": "train",
    "adapters": "train",
    "spectrograms": "train",
    "baselines": "train",
    "corpus": "transcribe",
    "transcripts": "transcribe",
    "calibration": "transcribe",
    "report": "evaluate",
}


@dataclass(frozen=True)
class Run:
    """One configuration on its way through the stages."""

    config: Config

    @cached_property
    def plan(self) -> Plan:
        """All steps."""
        return plan_run(self.config, self.output)

    def plan_again(self) -> None:
        """Look at the texts again, which have been written since: see `plan_run`."""
        self.__dict__.pop("plan", None)

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

    def has_work(self, jobs: Collection[str]) -> bool:
        """Whether these jobs have anything left to do: Ray, slow to start, need not be asked.

        Raises:
            DasError: One of them needs a dataset that none of them makes and that is not there.
        """
        todo = [
            step
            for step in self.plan.steps
            if JOBS[step.stage] in jobs and not self.dataset(step).finished
        ]
        for dependency in (dep for step in todo for dep in step.deps):
            if JOBS[dependency.stage] not in jobs:
                self.source(dependency)
        return bool(todo)

    def pending(self, steps: Mapping[str, Step]) -> dict[str, Dataset]:
        """Datasets of the unfinished steps, begun; the finished ones are reported as up to date."""
        todo, finished = {}, []
        for key, step in steps.items():
            dataset = self.dataset(step)
            if dataset.finished:
                finished.append(dataset.summary())
            else:
                dataset.begin(step.config)
                todo[key] = dataset
        if finished:
            self.tell("up to date", finished)
        return todo

    def finish(
        self,
        datasets: Mapping[str, Dataset],
        rows_in: Mapping[str, int],
        started: float,
        reasons: Mapping[str, Mapping[str, int]] | None = None,
    ) -> None:
        """Mark a stage's datasets whole and print its summary line.

        Args:
            datasets: What the stage made since ``started``.
            rows_in: The rows that went into each, by the same keys.
            started: A time of `time.monotonic`. Datasets are made side by side, so each is given
                its rows' share of the stage's time: over the datasets of a stage, seconds add up.
            reasons: Rejected rows of adapters, by the same keys; see `Dataset.finish`.
        """
        seconds = time.monotonic() - started
        total = max(sum(rows_in.values()), 1)
        reasons = reasons or {}
        summaries = [
            dataset.finish(
                rows_in[key], seconds * rows_in[key] / total, versions(), reasons.get(key)
            )
            for key, dataset in datasets.items()
        ]
        self.tell("done", summaries)

    @staticmethod
    def tell(state: str, summaries: Sequence[Summary]) -> None:
        """One line on standard error for all datasets of a stage."""
        for stage in total_by_stage(summaries):
            line = f"{stage.stage:<12} {state}: {stage.rows_out} of {stage.rows_in} rows"
            line += f" in {len(summaries)} datasets" if len(summaries) > 1 else ""
            if stage.rejected:
                reasons = ", ".join(f"{count} {reason}" for reason, count in stage.reasons.items())
                line += f", {stage.rejected} rejected ({reasons})"
            if state == "done":
                line += f", {format_seconds(stage.seconds)}"
            print(line, file=sys.stderr, flush=True)

    def summaries(self) -> list[Summary]:
        """Summaries of all finished steps, in the order of the work."""
        datasets = [self.dataset(step) for step in self.plan.steps]
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
