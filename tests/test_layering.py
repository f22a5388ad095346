"""das_lib is a library: it must import where Ray is not installed."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]

CODE = """
import importlib, pkgutil, sys
class NoRay:
    def find_spec(self, name, path=None, target=None):
        if name == "ray" or name.startswith("ray."):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, NoRay())
for package in ("das_lib", "schemas"):
    root = importlib.import_module(package)
    for module in pkgutil.walk_packages(root.__path__, package + "."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ImportError as error:  # das_lib.adml.cpu.amx, where there is none
                if "the CPU has no" not in str(error):
                    raise
            print(module.name)
"""


def test_das_lib_and_schemas_import_without_ray():
    done = subprocess.run(
        [sys.executable, "-c", CODE], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "das_lib.adml.engine" in done.stdout


def test_the_command_line_answers_before_anything_slow_is_imported():
    code = (
        "import sys, ray_jobs.cli; ray_jobs.cli.parser();"
        "print(*sorted({'torch', 'ray', 'pyarrow', 'transformers', 'numpy'} & sys.modules.keys()))"
    )
    assert said(code) == []


def test_workers_that_do_without_torch_do_not_wait_for_it():
    code = (
        "import sys, ray_jobs.feed, ray_jobs.flow, ray_jobs.generate, ray_jobs.synthesize;"
        "print(*sorted({'torch', 'transformers'} & sys.modules.keys()))"
    )
    assert said(code) == []


def said(code: str) -> list[str]:
    """Words that a fresh interpreter prints."""
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    return done.stdout.split()
