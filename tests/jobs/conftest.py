"""Projects on fakes that the tests of the jobs run."""

from pathlib import Path

import pytest
from job_project import Project, make_project

from das_lib.testing import tiny_whisper


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Path:
    """A random Whisper of a few thousand weights that hears 30 s."""
    return tiny_whisper(tmp_path_factory.mktemp("tiny"), chunk_s=30)


@pytest.fixture
def project(tiny, tmp_path) -> Project:
    """Two domains of own texts, one test set with good and bad recordings."""
    return make_project(tiny, tmp_path)


@pytest.fixture
def small_project(tiny, tmp_path) -> Project:
    """One domain: for what does not depend on their number, in half the time."""
    return make_project(tiny, tmp_path, domains=("music",))
