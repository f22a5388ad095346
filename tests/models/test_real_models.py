"""The real packages: downloaded, converted and put to work."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch

from das_lib.models import find_model, find_voice, load_whisper

pytestmark = pytest.mark.slow

SPEECH = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data")) / "speech" / "librispeech_clean"


@pytest.mark.skipif(not SPEECH.is_dir(), reason=f"no {SPEECH}; set DAS_SHARED_DATA")
def test_whisper_base_from_its_packages_transcribes_real_speech():
    import jiwer
    import soundfile
    from whisper_normalizer.english import EnglishTextNormalizer

    assert find_model("openai/whisper-base").source == "packages"
    model, processor = load_whisper("openai/whisper-base")
    assert sum(p.numel() for p in model.parameters()) == 72_593_920
    lines = (SPEECH / "manifest.jsonl").read_text().splitlines()[:5]
    clips = [json.loads(line) for line in lines]
    audio = [soundfile.read(SPEECH / clip["audio"])[0] for clip in clips]
    features = processor(audio, sampling_rate=16000, return_tensors="pt").input_features
    with torch.inference_mode():
        tokens = model.generate(features, language="en", task="transcribe")
    texts = processor.batch_decode(tokens, skip_special_tokens=True)
    normalise = EnglishTextNormalizer()
    wer = jiwer.wer([normalise(c["text"]) for c in clips], [normalise(text) for text in texts])
    assert wer < 0.08


def test_smollm2_from_its_package_answers_through_the_chat_template():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    found = find_model("HuggingFaceTB/SmolLM2-135M-Instruct")
    assert found.source == "packages"
    tokenizer = AutoTokenizer.from_pretrained(found.path)
    model: Any = AutoModelForCausalLM.from_pretrained(found.path, use_safetensors=True).eval()
    assert model.dtype == torch.bfloat16
    assert len(tokenizer) == model.config.vocab_size == 49152
    assert tokenizer("in 2024").input_ids[-4:] == tokenizer.convert_tokens_to_ids([*"2024"])
    question = [{"role": "user", "content": "What is the capital of France?"}]
    inputs = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_tensors="pt", return_dict=True
    )
    with torch.inference_mode():
        reply = model.generate(**inputs, max_new_tokens=30, do_sample=False)[0]
    assert reply[-1] == tokenizer.eos_token_id
    answer = tokenizer.decode(reply[inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    assert "Paris" in answer


def test_the_voice_from_its_package_speaks():
    from piper import PiperVoice

    found = find_voice("en_US-joe-medium")
    assert found.source == "packages"
    chunks = list(PiperVoice.load(found.path).synthesize("Good morning."))
    assert chunks[0].sample_rate == 22050
    samples = torch.tensor(chunks[0].audio_float_array)
    assert samples.abs().max() > 0.05
