"""All stages in the order of the work: the table of contents of the system.

python -m ray_jobs.pipeline --config configs/demo.yaml
"""

import sys
from collections.abc import Callable

from ray_jobs.evaluate import evaluate
from ray_jobs.generate import generate
from ray_jobs.run import Run
from ray_jobs.synthesize import synthesize
from ray_jobs.train import train
from ray_jobs.transcribe import calibrate, transcribe

STAGES: dict[str, Callable[[Run], None]] = {
    "generate": generate,
    "synthesize": synthesize,
    "train": train,
    "calibrate": calibrate,
    "transcribe": transcribe,
    "evaluate": evaluate,
}


def run_stages(run: Run, names: list[str]) -> None:
    """Run the stages that have anything left to do."""
    for name in names:
        STAGES[name](run)


if __name__ == "__main__":
    from ray_jobs.cli import main

    sys.exit(main(["run", *sys.argv[1:]]))
