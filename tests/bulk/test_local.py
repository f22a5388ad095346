"""Long recordings with the real engine: as good as the clips one by one."""

import os
from pathlib import Path

import pytest

from das_lib.adml import Fixed, Transcriber
from das_lib.bench.longform import blocks, join, placement
from das_lib.bench.material import read_utterances
from das_lib.bulk.hear import HearSettings
from das_lib.bulk.local import hear_locally
from das_lib.bulk.vad import Vad
from das_lib.evaluation.wer import corpus_wer
from das_lib.models import resolve_model

SHARED = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data")) / "speech"
MINUTES = 3.0


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no shared speech in {SHARED}: DAS_SHARED_DATA")
def test_a_long_recording_is_heard_as_well_as_its_clips():
    manifest = SHARED / "librispeech_clean" / "manifest.jsonl"
    clips, texts = zip(*read_utterances(manifest, 30), strict=True)
    audio, spoken = join(clips, texts, MINUTES)
    transcriber = Transcriber.from_pretrained(resolve_model("openai/whisper-base"), language="en")
    alone = transcriber.transcribe([s.audio for s in spoken], {"base": Fixed(0)})
    one_by_one = corpus_wer([(s.text, r["base"].text) for s, r in zip(spoken, alone, strict=True)])
    settings = HearSettings(word_times=True)
    [heard] = hear_locally(
        {"long": blocks(audio)}, transcriber, Fixed(0), settings=settings, vad=Vad.from_package()
    )
    long = corpus_wer([(" ".join(s.text for s in spoken), heard.transcript.text)])
    assert long.wer <= one_by_one.wer + 0.005
    found = placement(spoken, heard)
    assert found["lost_clips"] == 0
    assert found["words_in_place"] > 0.98
    assert heard.transcript.speech_s < heard.transcript.duration_s
