"""Memory that is freed and used again."""

import os
import platform
import subprocess
import sys

import pytest

from das_lib.memory import KEEP_FREED_MEMORY

# In a process of its own, for the setting outlives a test; in a thread, as replicas decode.
PROGRAM = """
import resource, sys, threading
from das_lib.memory import keep_freed_memory

if sys.argv[1:]:
    assert keep_freed_memory()

import torch

def work():
    for turn in range(9):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        parts = [torch.ones(size << 18) for size in (1, 100, 10, 40)]  # MiB
        del parts
        faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    print(faults)

thread = threading.Thread(target=work)
thread.start()
thread.join()
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
@pytest.mark.parametrize(
    ("more", "environment", "kept"),
    [(["keep"], {}, True), ([], KEEP_FREED_MEMORY, True), ([], {}, False)],
)
def test_freed_memory_is_used_again_and_not_asked_for_anew(more, environment, kept):
    command = [sys.executable, "-c", PROGRAM, *more]
    ran = subprocess.run(command, env=os.environ | environment, check=True, stdout=subprocess.PIPE)
    assert (int(ran.stdout) < 100) == kept  # pages, of 38,400
