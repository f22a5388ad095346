import json

import numpy as np
import pytest
import torch
from transformers import (
    GenerationConfig,
    WhisperForConditionalGeneration,
    WhisperProcessor,
    WhisperTokenizer,
)

from das_lib.errors import ModelError
from das_lib.models.whisper_ct2 import convert_whisper, read_ct2, state_dict


def logits(model):
    mel = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        return model(
            input_features=mel, decoder_input_ids=torch.tensor([[257, 258, 260, 72]])
        ).logits


def test_a_converted_model_gives_the_logits_of_the_original(tiny_source, tmp_path):
    model, source = tiny_source
    out = tmp_path / "hf"
    out.mkdir()
    convert_whisper(source, out)
    again = WhisperForConditionalGeneration.from_pretrained(out, use_safetensors=True).eval()
    assert again.dtype == torch.float32
    torch.testing.assert_close(logits(again), logits(model), rtol=0, atol=0)
    assert again.config.decoder_attention_heads == 4
    assert again.config.encoder_attention_heads == 2


def test_float16_weights_keep_their_values(tiny_source, tools):
    model, source = tiny_source
    tools.write_ct2(source / "model.bin", tools.ct2_tensors(model), kind="<f2")
    state = state_dict(read_ct2(source / "model.bin"))
    for name, value in model.state_dict().items():
        torch.testing.assert_close(state[name], value.half().float(), rtol=0, atol=0)


def test_the_folder_has_what_generate_and_the_processor_need(tiny_source, tmp_path):
    _, source = tiny_source
    out = tmp_path / "hf"
    out.mkdir()
    convert_whisper(source, out)
    generation = GenerationConfig.from_pretrained(out).to_dict()
    assert generation["lang_to_id"] == {"<|en|>": 258, "<|de|>": 259}
    assert generation["task_to_id"] == {"transcribe": 261, "translate": 260}
    assert generation["no_timestamps_token_id"] == 265
    assert generation["decoder_start_token_id"] == 257
    assert generation["eos_token_id"] == 256
    assert generation["suppress_tokens"] == [1, 2]
    assert generation["begin_suppress_tokens"] == [32, 256]
    assert generation["alignment_heads"] == [[0, 1]]
    assert generation["max_length"] == 448
    tokenizer = WhisperTokenizer.from_pretrained(out)
    ids = tokenizer("What's up?").input_ids
    assert tokenizer.decode(ids, skip_special_tokens=True) == "What's up?"
    assert tokenizer.normalize("Colour") == "color"
    processor = WhisperProcessor.from_pretrained(out)
    features = processor(np.zeros(16000), sampling_rate=16000, return_tensors="pt").input_features
    model = WhisperForConditionalGeneration.from_pretrained(out).eval()
    tokens = model.generate(features, language="en", task="transcribe", max_new_tokens=5)
    assert len(processor.batch_decode(tokens)) == 1


def test_a_file_that_was_cut_is_refused_with_its_path(tiny_source):
    _, source = tiny_source
    path = source / "model.bin"
    whole = path.read_bytes()
    for size in (3, 40, len(whole) // 2):
        path.write_bytes(whole[:size])
        with pytest.raises(ModelError, match=r"model\.bin is no whole CTranslate2"):
            read_ct2(path)


def test_a_key_bias_is_refused_because_whisper_has_none(tiny_source, tools):
    model, _ = tiny_source
    tensors = tools.ct2_tensors(model)
    tensors["decoder/layer_0/attention/linear_1/bias"] += 1
    with pytest.raises(ModelError, match="share of k is not zero"):
        state_dict(tensors)


def test_a_tensor_that_whisper_lacks_is_refused_by_name(tiny_source, tools):
    model, _ = tiny_source
    tensors = {**tools.ct2_tensors(model), "encoder/layer_0/gate/weight": np.ones((2, 2), "f4")}
    with pytest.raises(ModelError, match="encoder/layer_0/gate/weight"):
        state_dict(tensors)


def test_a_tokenizer_without_whispers_tokens_is_refused(tiny_source, tmp_path):
    _, source = tiny_source
    path = source / "tokenizer.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "added_tokens": []}))
    with pytest.raises(ModelError, match="endoftext"):
        convert_whisper(source, tmp_path)


def test_a_file_that_lacks_a_tensor_is_refused_by_its_name(tiny_source, tools, tmp_path):
    model, source = tiny_source
    for name in ("encoder/num_heads", "decoder/layer_0/attention/linear_1/bias"):
        tensors = tools.ct2_tensors(model)
        del tensors[name]
        tools.write_ct2(source / "model.bin", tensors)
        with pytest.raises(ModelError, match=f"has no tensor '{name}'"):
            convert_whisper(source, tmp_path)
