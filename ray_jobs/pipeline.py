"""All stages in the order of the work: the table of contents of the system.

python -m ray_jobs.pipeline --config configs/demo.yaml
"""

import sys
from importlib import import_module

from ray_jobs.run import Run

# Each stage is imported when it runs: torch, which half of them do without, takes seconds.
STAGES = {
    "generate": "ray_jobs.generate",
    "synthesize": "ray_jobs.synthesize",
    "train": "ray_jobs.train",
    "calibrate": "ray_jobs.transcribe",
    "transcribe": "ray_jobs.transcribe",
    "evaluate": "ray_jobs.evaluate",
}


def run_stages(run: Run, names: list[str]) -> None:
    """Run the stages that have anything left to do."""
    for name in names:
        getattr(import_module(STAGES[name]), name)(run)


if __name__ == "__main__":
    from ray_jobs.cli import main

    sys.exit(main(["run", *sys.argv[1:]]))
