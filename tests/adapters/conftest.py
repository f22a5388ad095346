"""A tiny base and an adapter for it."""

import pytest
from adml_helpers import pissa_adapter, random_adapter

from das_lib.testing import tiny_whisper


@pytest.fixture(scope="session")
def base(tmp_path_factory):
    return tiny_whisper(tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def make_adapter(base, tmp_path):
    def make(*, pissa=False, **options):
        make_one = pissa_adapter if pissa else random_adapter
        name = f"adapter-{len(list(tmp_path.iterdir()))}"
        made = make_one(tmp_path / name, base, **options)
        return made[0] if pissa else made

    return make
