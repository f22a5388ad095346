import os
import signal
import subprocess
import sys

import pytest

from das_lib.errors import ModelError
from das_lib.models.cache import build_once, cache_root, converted, folder_of

BUILDER = """
import os, signal, sys, time
from das_lib.models.cache import build_once
def build(folder):
    with open(sys.argv[1], "a") as log: log.write("built\\n")
    (folder / "half").write_text("x")
    if sys.argv[2] == "die": os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(0.5)
    (folder / "weights").write_text("whole")
    return {}
print(build_once("owner/model", build))
"""


def start(log, what):
    return subprocess.Popen(
        [sys.executable, "-c", BUILDER, str(log), what], stdout=subprocess.PIPE, env=os.environ
    )


def test_two_processes_that_want_one_model_convert_it_once(tmp_path):
    log = tmp_path / "log"
    both = [start(log, "live"), start(log, "live")]
    folders = {process.communicate(timeout=60)[0] for process in both}
    assert [process.returncode for process in both] == [0, 0]
    assert folders == {f"{folder_of('owner/model')}\n".encode()}
    assert log.read_text() == "built\n"
    assert (folder_of("owner/model") / "weights").read_text() == "whole"


def test_a_killed_conversion_leaves_nothing_that_counts_and_the_next_one_succeeds(tmp_path):
    log = tmp_path / "log"
    dead = start(log, "die")
    dead.communicate(timeout=60)
    assert dead.returncode == -signal.SIGKILL
    assert converted("owner/model") is None
    assert not folder_of("owner/model").exists()

    def build(folder):
        assert list(folder.iterdir()) == []  # nothing of the dead one is mixed in
        (folder / "weights").write_text("whole")
        return {}

    folder = build_once("owner/model", build)
    assert converted("owner/model") == folder
    assert sorted(p.name for p in cache_root().iterdir()) == ["owner--model", "owner--model.lock"]


def test_a_failed_conversion_leaves_nothing_and_keeps_its_error():
    def build(folder):
        (folder / "half").write_text("x")
        raise ModelError("broken source")

    with pytest.raises(ModelError, match="broken source"):
        build_once("owner/model", build)
    assert [p.name for p in cache_root().iterdir()] == ["owner--model.lock"]


def test_a_folder_of_an_older_converter_is_converted_again(monkeypatch):
    build_once("owner/model", lambda folder: {})
    monkeypatch.setattr("das_lib.models.cache.CONVERTER_VERSION", 2)
    assert converted("owner/model") is None
    (folder_of("owner/model") / "old").write_text("x")
    folder = build_once("owner/model", lambda folder: {})
    assert converted("owner/model") == folder
    assert not (folder / "old").exists()


def test_a_cache_that_cannot_be_written_is_named_with_the_way_out(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("DAS_CACHE", str(tmp_path / "file"))
    with pytest.raises(ModelError, match=r"file/models cannot be written.*DAS_CACHE"):
        build_once("owner/model", lambda folder: {})


def test_the_cache_follows_das_cache_then_xdg_then_home(tmp_path, monkeypatch):
    assert cache_root() == tmp_path / "das" / "models"
    monkeypatch.delenv("DAS_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_root() == tmp_path / "xdg" / "das" / "models"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_root() == tmp_path / ".cache" / "das" / "models"
