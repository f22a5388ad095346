"""What the benchmarks decode: real clips, and adapters of the paper's size."""

import json
import math
import os
from collections.abc import Mapping, Sequence
from itertools import zip_longest
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from das_lib.adml.adapter import CONFIG_FILE, WEIGHTS_FILE
from das_lib.errors import DasError

HERE = Path("data/eval/librivox/manifest.jsonl")


def speech_manifests() -> list[Path]:
    """Every set of the shared speech where it is, else the recordings of this repository."""
    shared = Path(os.environ.get("DAS_SHARED_DATA", "../shared/data"))
    return sorted(shared.glob("speech/*/manifest.jsonl")) or [HERE]


def default_manifest() -> Path:
    """The set that timings decode: short clips of many voices."""
    manifests = speech_manifests()
    return next((path for path in manifests if path.parent.name == "voices_dev"), manifests[0])


def read_clips(manifest: Path, count: int) -> list[np.ndarray]:
    """``count`` clips of a manifest, spread evenly over it, again from the start if it ends.

    Raises:
        DasError: There is no such manifest, or no clip in it that is short enough.
    """
    clips = [clip for clip, _ in read_utterances(manifest, count)]
    return [clips[i % len(clips)] for i in range(count)]


def read_utterances(
    manifest: Path, count: int, *, longest_s: float = 30.0
) -> list[tuple[np.ndarray, str]]:
    """Up to ``count`` clips of at most ``longest_s`` with their texts, spread over a manifest.

    Raises:
        DasError: There is no such manifest, or no clip in it that is short enough.
    """
    from das_lib.speech.audio import SAMPLE_RATE, read_audio

    try:
        lines = manifest.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise DasError(
            f"--audio: {manifest} cannot be read ({error.strerror}); name a manifest.jsonl"
        ) from error
    rows = [json.loads(line) for line in lines if line.strip()]
    step = max(1, len(rows) // count)
    found = []
    for row in (row for start in range(step) for row in rows[start::step]):
        clip = read_audio(manifest.parent / row["audio"])
        if len(clip) <= longest_s * SAMPLE_RATE:
            found.append((clip, row["text"]))
        if len(found) == count:
            break
    if not found:
        raise DasError(f"--audio: {manifest} has no clip of at most {longest_s:g} s; name another")
    return found


def read_sets(manifests: Sequence[Path], count: int) -> list[tuple[np.ndarray, str]]:
    """Up to ``count`` utterances of each manifest, from each in turn: any beginning has them all.

    Raises:
        DasError: as `read_utterances`.
    """
    sets = [read_utterances(manifest, count) for manifest in manifests]
    return [u for turn in zip_longest(*sets) for u in turn if u is not None]


def write_adapters(folder: Path, config: Mapping[str, Any], count: int) -> dict[str, Path]:
    """Random adapters as the paper's training leaves them: PiSSA of rank 32, made plain LoRA.

    q and v of both attentions, alpha 64, rank-stabilised; all share their start, so each folder
    holds rank 64. The changes are small: decoding goes on as the base alone would.
    """
    rank, width = min(32, config["d_model"] // 2), config["d_model"]
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int, size: float) -> torch.Tensor:
        return torch.randn(*shape, generator=generator) * size

    sites = [
        f"base_model.model.model.decoder.layers.{layer}.{block}.{projection}"
        for layer in range(config["decoder_layers"])
        for block in ("self_attn", "encoder_attn")
        for projection in ("q_proj", "v_proj")
    ]
    size = 0.02 / math.sqrt(width)
    start = {site: (draw(rank, width, size=1), draw(width, rank, size=size)) for site in sites}
    folders = {}
    for i in range(count):
        tensors = {}
        for site, (a_RI, b_OR) in start.items():
            own_RI = a_RI + draw(rank, width, size=0.02)
            own_OR = b_OR + draw(width, rank, size=0.02 * size)
            tensors[f"{site}.lora_A.weight"] = torch.cat([own_RI, a_RI])
            tensors[f"{site}.lora_B.weight"] = torch.cat([own_OR, -b_OR], 1)
        out = folder / f"adapter{i}"
        out.mkdir(parents=True)
        save_file(tensors, out / WEIGHTS_FILE)
        settings = {
            "peft_type": "LORA",
            "r": 2 * rank,
            "lora_alpha": 64 * math.sqrt(2),
            "use_rslora": True,
            "init_lora_weights": True,
            "target_modules": sorted({site.rsplit(".", 1)[1] for site in sites}),
        }
        (out / CONFIG_FILE).write_text(json.dumps(settings))
        folders[f"domain{i}"] = out
    return folders
