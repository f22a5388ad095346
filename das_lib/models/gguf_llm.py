"""A llama-like GGUF file -> a folder in Hugging Face form that transformers and vLLM load."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from das_lib.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

_CONTROL, _USER_DEFINED = 3, 4  # GGUF's token types that never result from a merge


def convert_gguf(source: Path, folder: Path) -> None:
    """Writes safetensors (bfloat16), tokenizer with chat template and generation config.

    The weights are what the GGUF's quantisation left of them, unpacked; they need no GGUF kernel.

    Args:
        source: folder with ``model.gguf``.
        folder: empty folder to fill.

    Raises:
        ModelError: the file is no GGUF, or its tokenizer is of a kind that this does not know.
    """
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, GgufConfig

    path = source / "model.gguf"
    fields = _fields(path)
    model = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=path.name,
        quantization_config=GgufConfig(dequantize=True),
        dtype=torch.bfloat16,
    )
    tokenizer = _tokenizer(path, fields)
    special = {
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    model.config.update(special)
    model.generation_config = GenerationConfig(**special)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _fields(path: Path) -> dict[str, Any]:
    """The file's metadata as Python values."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        return {name: field.contents() for name, field in reader.fields.items()}
    except (ValueError, IndexError) as error:
        raise ModelError(f"{path} is no whole GGUF file: {error}. Fetch it again.") from error


def _tokenizer(path: Path, fields: dict[str, Any]) -> "PreTrainedTokenizerFast":
    """SmolLM's byte-level BPE: digits one by one, then GPT-2's split.

    Built from the metadata, because transformers' own GGUF reading leaves the digit split out.
    """
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    kind = fields.get("tokenizer.ggml.pre")
    if kind != "smollm":
        raise ModelError(
            f"{path}: tokenizer.ggml.pre is {kind!r}, and only 'smollm' can be converted; give a "
            "folder in Hugging Face form instead."
        )
    tokens: list[str] = fields["tokenizer.ggml.tokens"]
    merges = [tuple(pair.split(" ")) for pair in fields["tokenizer.ggml.merges"]]
    core = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate(tokens)}, merges=merges))
    core.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    core.decoder = decoders.ByteLevel()
    for token, its_type in zip(tokens, fields["tokenizer.ggml.token_type"], strict=True):
        if its_type in (_CONTROL, _USER_DEFINED):
            special = its_type == _CONTROL
            core.add_tokens([AddedToken(token, special=special, normalized=False)])
    named = {
        f"{ours}_token": tokens[fields[f"tokenizer.ggml.{theirs}_token_id"]]
        for ours, theirs in {
            "bos": "bos",
            "eos": "eos",
            "unk": "unknown",
            "pad": "padding",
        }.items()
    }
    return PreTrainedTokenizerFast(
        tokenizer_object=core,
        **named,
        chat_template=fields["tokenizer.chat_template"],
        model_max_length=fields["llama.context_length"],
        clean_up_tokenization_spaces=False,
    )
