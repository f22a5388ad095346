"""The engine on the real whisper-base and real speech, against stock transformers and PEFT."""

import numpy as np
import pytest
import torch
from adml_helpers import ALL_SITES, ATTENTION_QV, Loop, prompt, random_adapter, read_set
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from das_lib.adml import Adml, Fixed, Transcriber
from das_lib.bench.parity import same_choices
from das_lib.doubt import NO_SPEECH_PROB

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]


@pytest.mark.parametrize("language", ["en", None])
def test_the_base_transcribes_librispeech_as_stock_generate_does(whisper_base, speech, language):
    audio = read_set(speech / "librispeech_clean", 8 if language else 3)
    engine = Transcriber.from_pretrained(whisper_base, {}, language=language)
    rows = engine.transcribe(audio, {"base": Fixed(0)}, batch_size=4)
    model = WhisperForConditionalGeneration.from_pretrained(whisper_base).eval()
    tokenizer = WhisperProcessor.from_pretrained(whisper_base).tokenizer
    options = {"language": language, "task": "transcribe", "do_sample": False, "num_beams": 1}
    for clip, row in zip(audio, rows, strict=True):
        with torch.inference_mode():
            ids = model.generate(
                input_features=engine.features([clip]), max_new_tokens=224, **options
            )
        assert row["base"].text == tokenizer.decode(ids[0], skip_special_tokens=True).strip()
        assert row["base"].language == "en"


def test_whisper_tells_silence_and_noise_from_speech(whisper_base, speech):
    noise = np.random.default_rng(0).standard_normal(160_000) * 0.003
    quiet = [np.zeros(160_000, np.float32), noise.astype(np.float32)]
    transcriber = Transcriber.from_pretrained(whisper_base, {}, language="en")
    mel = transcriber.features(quiet + read_set(speech / "librispeech_clean", 3))
    memory = transcriber.engine.memory(transcriber.engine.encode(mel))
    heard = transcriber.engine.no_speech(memory, range(5))
    assert min(heard[:2]) > NO_SPEECH_PROB
    assert max(heard[2:]) < 0.05


def test_adml_on_real_speech_agrees_with_separate_full_passes(tmp_path, whisper_base, speech):
    specs = [
        {"seed": 1, "r": 32, "lora_alpha": 64, "use_rslora": True, "target_modules": ATTENTION_QV},
        {"seed": 2, "r": 8, "lora_alpha": 16, "target_modules": ALL_SITES},
        {"seed": 3, "r": 4, "lora_alpha": 7.5, "target_modules": r".*decoder.*\.k_proj"},
    ]
    folders = [
        random_adapter(tmp_path / f"a{i}", whisper_base, size=0.006, **spec)
        for i, spec in enumerate(specs)
    ]
    audio = sorted(read_set(speech / "voices_dev", 12), key=len)[:3]
    audio += sorted(read_set(speech / "librispeech_clean", 30), key=len)[:1]
    named = {f"a{i}": folder for i, folder in enumerate(folders)}
    engine = Transcriber.from_pretrained(whisper_base, named, language="en", max_new_tokens=40)
    loop = Loop(whisper_base, folders)
    rows = engine.transcribe(audio, {"das": Adml(), **{f"a{i}": Fixed(i) for i in (0, 1, 2, 3)}})
    chosen = set()
    for clip, row in zip(audio, rows, strict=True):
        [mel] = engine.features([clip])
        steps = loop(mel, prompt(loop.models[0]), tau=0.025, limit=40)
        assert row["das"].tokens == [s.token for s in steps]
        assert row["das"].branch == [s.branch for s in steps]
        chosen |= set(row["das"].branch)
    assert len(chosen) > 2
    assert any(row["a0"].tokens != row[f"a{i}"].tokens for row in rows for i in (1, 2, 3))


def test_weights_in_bfloat16_choose_the_same_tokens(tmp_path, whisper_base, speech):
    adapter = random_adapter(tmp_path / "a", whisper_base, seed=1, size=0.006)
    audio = sorted(read_set(speech / "voices_dev", 30), key=len)[:12]
    options = {"language": "en", "max_new_tokens": 40}
    exact, half = (
        Transcriber.from_pretrained(whisper_base, {"a": adapter}, precision=precision, **options)
        for precision in ("float32", "bfloat16")
    )
    wanted = [row["das"].tokens for row in exact.transcribe(audio, {"das": Adml()})]
    count = sum(map(len, wanted))
    assert count > 80
    assert same_choices(exact, audio, wanted, tau=0.025) == count
    # Where two tokens are nearly as likely; over thousands it is one of a thousand at the most.
    assert same_choices(half, audio, wanted, tau=0.025) >= count - 1
