"""Fakes that ship with the package: a tiny random Whisper (see also FakeLlm, FakeSynthesizer)."""

from pathlib import Path

SPECIALS = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|en|>",
    "<|de|>",
    "<|transcribe|>",
    "<|translate|>",
    "<|notimestamps|>",
)


def tiny_whisper(
    folder: Path,
    *,
    seed: int = 1,
    multilingual: bool = True,
    d_model: int = 32,
    layers: int = 2,
    chunk_s: int = 1,
    max_target_positions: int = 64,
) -> Path:
    """Save a random Whisper with a byte tokenizer, in the Hugging Face form."""
    import torch
    from transformers import (
        GenerationConfig,
        WhisperConfig,
        WhisperFeatureExtractor,
        WhisperForConditionalGeneration,
        WhisperTokenizer,
    )
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    torch.manual_seed(seed)
    vocab = {char: i for i, char in enumerate(bytes_to_unicode().values())}
    vocab |= {token: len(vocab) + i for i, token in enumerate(SPECIALS)}
    tokenizer = WhisperTokenizer(vocab=vocab, merges=[])
    tokenizer.add_special_tokens({"additional_special_tokens": list(SPECIALS)})
    tokenizer.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=20, chunk_length=chunk_s).save_pretrained(folder)
    end, start = vocab["<|endoftext|>"], vocab["<|startoftranscript|>"]
    config = WhisperConfig(
        vocab_size=len(vocab),
        num_mel_bins=20,
        d_model=d_model,
        encoder_layers=1,
        decoder_layers=layers,
        encoder_attention_heads=4,
        decoder_attention_heads=4,
        encoder_ffn_dim=2 * d_model,
        decoder_ffn_dim=2 * d_model,
        max_source_positions=50 * chunk_s,
        max_target_positions=max_target_positions,
        init_std=0.35,
        pad_token_id=end,
        bos_token_id=end,
        eos_token_id=end,
        decoder_start_token_id=start,
        suppress_tokens=None,
        begin_suppress_tokens=None,
    )
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" not in name and name.endswith("bias"):
                parameter.normal_(std=0.1)
        # The padding row starts as 0; a long row makes the end the likeliest now and then.
        model.model.decoder.embed_tokens.weight[end].normal_(std=0.7)
        # Far apart logits would leave confidences of 1, and no rule to fire.
        model.get_parameter("model.decoder.layer_norm.weight").mul_(0.7)
    model.save_pretrained(folder)
    languages = {
        "lang_to_id": {t: vocab[t] for t in ("<|en|>", "<|de|>")},
        "task_to_id": {t: vocab[f"<|{t}|>"] for t in ("transcribe", "translate")},
    }
    GenerationConfig(
        eos_token_id=end,
        pad_token_id=end,
        decoder_start_token_id=start,
        no_timestamps_token_id=vocab["<|notimestamps|>"],
        is_multilingual=multilingual,
        suppress_tokens=[*range(33), *range(end + 1, len(vocab))],
        begin_suppress_tokens=[end, 40],
        max_length=max_target_positions,
        **(languages if multilingual else {}),
    ).save_pretrained(folder)
    return folder
