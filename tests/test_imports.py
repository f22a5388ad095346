"""What a job's driver waits for before it starts."""

import subprocess
import sys

HEAVY = ("peft", "scipy.signal", "torch", "transformers", "vllm")


def test_drivers_import_nothing_that_workers_alone_need():
    jobs = "bulk, calibrate, evaluate, generate, serving, synthesize, train, transcribe"
    look = f"import sys; from ray_jobs import {jobs}; print(*{set(HEAVY)} & sys.modules.keys())"
    done = subprocess.run(
        [sys.executable, "-c", look], capture_output=True, text=True, timeout=120, check=True
    )
    assert done.stdout.split() == []
