"""Fixtures of the ADML tests."""

import os
from pathlib import Path

import pytest
import torch

from das_lib.testing import tiny_whisper


@pytest.fixture(autouse=True)
def one_thread():
    """Tiny products lose more to a second thread, on a busy machine, than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def base(tmp_path_factory) -> Path:
    return tiny_whisper(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="session")
def speech() -> Path:
    folder = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data")) / "speech"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: set DAS_SHARED_DATA to the shared test data")
    return folder


@pytest.fixture(scope="session")
def whisper_base() -> Path:
    from das_lib.models.resolve import resolve_model

    return resolve_model("openai/whisper-base")


@pytest.fixture(params=[1, 2])
def threads(request):
    """Torch on one thread, then on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)
