"""faster-whisper on the real whisper-base: what it hears, and that no thread of it runs here."""

import os
import sys
from pathlib import Path

import pytest
from adml_helpers import read_set

from das_lib.bench.faster_whisper import FasterWhisper
from das_lib.models.resolve import resolve_model

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_it_hears_clips_and_recordings_in_a_process_of_its_own(monkeypatch, tmp_path):
    folder = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data")) / "speech"
    if not folder.is_dir():
        pytest.skip(f"{folder} is missing: set DAS_SHARED_DATA to the shared test data")
    monkeypatch.delitem(sys.modules, "ctranslate2", raising=False)
    model = resolve_model("openai/whisper-base")
    clips = read_set(folder / "librispeech_clean", 2)
    with FasterWhisper(model, tmp_path, "float32", 2).one_by_one(clips, 100) as hear:
        texts = hear()
    assert len(texts) == 2
    assert "own consequence always required" in texts[0]
    with FasterWhisper(model, tmp_path, "int8", 2).batched(clips, 8) as hear:
        assert "consequence always required" in hear(0)
        assert hear(1)[:10] == texts[1][:10]
    assert "ctranslate2" not in sys.modules
