"""What counts as a whole model in Hugging Face form, or a whole Piper voice."""

import json
from pathlib import Path

_PICKLED = (".bin", ".pt", ".pth", ".ckpt", ".pkl")
_TOKENIZERS = ("tokenizer.json", "vocab.json", "tokenizer.model", "vocab.txt")
_PROCESSORS = ("preprocessor_config.json", "processor_config.json")


def weights_problem(folder: Path) -> str | None:
    """Why ``folder`` has no loadable config and safetensors weights, or None if it has.

    A file that is a dangling link (the hub's cache after an interrupted download) counts as absent.
    """
    if not (folder / "config.json").is_file():
        return "has no config.json"
    if (folder / "model.safetensors").is_file():
        return None
    try:
        index = json.loads((folder / "model.safetensors.index.json").read_text())
        shards = sorted(set(index["weight_map"].values()))
    except FileNotFoundError:
        if any(file.suffix in _PICKLED for file in folder.iterdir()):
            return "has only pickled weights, and nothing is unpickled here"
        return "has no model.safetensors"
    except (KeyError, ValueError):
        return "has a damaged model.safetensors.index.json"
    absent = [shard for shard in shards if not (folder / shard).is_file()]
    return f"lacks {len(absent)} of {len(shards)} weight files ({absent[0]})" if absent else None


def model_problem(folder: Path) -> str | None:
    """Like ``weights_problem``, and asks for the tokenizer and Whisper's feature extractor too."""
    if (problem := weights_problem(folder)) is not None:
        return problem
    if not any((folder / name).is_file() for name in _TOKENIZERS):
        return "has no tokenizer"
    try:
        kind = json.loads((folder / "config.json").read_text()).get("model_type")
    except ValueError:
        return "has a damaged config.json"
    if kind == "whisper" and not any((folder / name).is_file() for name in _PROCESSORS):
        return "has no preprocessor_config.json"
    return None


def voice_problem(onnx: Path) -> str | None:
    """Why ``onnx`` is not a whole Piper voice, or None if it is."""
    if not onnx.is_file():
        return "does not exist"
    beside = onnx.with_name(f"{onnx.name}.json")
    return None if beside.is_file() else f"has no {beside.name} beside it"
