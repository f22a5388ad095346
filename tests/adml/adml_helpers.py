"""Random PEFT adapters, a slow Algorithm 1, and clips for the tests of the engine."""

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import (
    WhisperForConditionalGeneration,
)

ATTENTION_QV = r".*decoder\.layers\.\d+\.(self_attn|encoder_attn)\.(q_proj|v_proj)"
ALL_SITES = r".*decoder\.layers\.\d+\.((self_attn|encoder_attn)\.(q|k|v|out)_proj|fc1|fc2)"


def random_adapter(folder: Path, base: Path, *, seed: int, size: float = 0.15, **options) -> Path:
    """Save a random PEFT LoRA; ``size`` is the spread of each projection's change."""
    torch.manual_seed(seed)
    options = {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION_QV, **options}
    model = WhisperForConditionalGeneration.from_pretrained(base)
    peft = get_peft_model(model, LoraConfig(**options))
    with torch.no_grad():
        for module in peft.modules():
            if hasattr(module, "lora_A") and "default" in module.lora_A:
                a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
                a.normal_()
                b.normal_(std=size / module.scaling["default"] / len(a) ** 0.5)
    peft.save_pretrained(folder)
    return folder


def pissa_adapter(
    folder: Path, base: Path, *, seed: int, size: float = 0.1, **options
) -> tuple[Path, dict[str, torch.Tensor]]:
    """Save a PiSSA adapter with random steps from its start, converted to plain LoRA by PEFT.

    Returns:
        The folder, and the weights that the adapted model has, by site.
    """
    options = {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION_QV, **options}
    config = LoraConfig(use_rslora=True, init_lora_weights="pissa", **options)
    model = WhisperForConditionalGeneration.from_pretrained(base)
    torch.manual_seed(0)
    peft = get_peft_model(model, config)
    peft.peft_config["default"].init_lora_weights = True
    initial = folder.with_name(folder.name + "-initial")
    peft.save_pretrained(initial)
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in peft.named_parameters():
            if "lora_" in name:
                parameter.add_(torch.randn_like(parameter) * size * parameter.std())
    peft.peft_config["default"].init_lora_weights = "pissa"
    peft.save_pretrained(folder, path_initial_model_for_weight_conversion=str(initial))
    peft.merge_and_unload()
    decoder = peft.base_model.model.model.decoder
    weights = {
        f"{i}.{site}.{name}": getattr(getattr(layer, site), name).weight.detach()
        for i, layer in enumerate(decoder.layers)
        for site in ("self_attn", "encoder_attn")
        for name in ("q_proj", "v_proj")
    }
    return folder, weights


@dataclass
class Step:
    """One token of the slow Algorithm 1."""

    token: int
    branch: int
    confidence: list[float]


class Loop:
    """Algorithm 1 as it is written: a full forward pass of each stock model for each token."""

    def __init__(self, base: Path, adapters: list[Path]):
        load = WhisperForConditionalGeneration.from_pretrained
        self.models = [load(base).eval()]
        self.models += [PeftModel.from_pretrained(load(base), a).eval() for a in adapters]

    @torch.inference_mode()
    def __call__(
        self, mel: torch.Tensor, prompt: list[int], *, tau: float, limit: int
    ) -> list[Step]:
        """Decode one utterance. mel: [mel bins, frames]."""
        generation = self.models[0].generation_config
        encoded = self.models[0].model.encoder(mel.unsqueeze(0))
        tokens, steps = list(prompt), []
        while len(steps) < limit:
            c, n = [], []
            for model in self.models:
                ids = torch.tensor([tokens])
                out = model(encoder_outputs=encoded, decoder_input_ids=ids, use_cache=False)
                logits = out.logits[0, -1]
                logits[generation.suppress_tokens] = -torch.inf
                if not steps:
                    logits[generation.begin_suppress_tokens] = -torch.inf
                p = logits.softmax(-1)
                c.append(p.max().item())
                n.append(p.argmax().item())
            if max(c) - c[0] >= tau:
                branch = c.index(max(c))
            elif min(c) - c[0] <= -tau:
                branch = c.index(min(c))
            else:
                branch = 0
            steps.append(Step(n[branch], branch, c))
            tokens.append(n[branch])
            if n[branch] == generation.eos_token_id:
                break
        return steps


def prompt(model: WhisperForConditionalGeneration, language: str = "en") -> list[int]:
    """The prompt of a multilingual model."""
    g = model.generation_config
    lang = g.lang_to_id[f"<|{language}|>"]
    return [
        g.decoder_start_token_id,
        lang,
        g.task_to_id["transcribe"],
        g.no_timestamps_token_id,
    ]


def clips(count: int, *, seed: int = 0, longest: int = 16_000) -> list[np.ndarray]:
    """Noise of several lengths and colours, 16 kHz."""
    rng = np.random.default_rng(seed)
    out = []
    for _ in range(count):
        noise = rng.normal(size=rng.integers(longest // 4, longest + 1))
        smooth = np.convolve(noise, np.ones(rng.integers(1, 30)), "same")
        out.append((smooth * rng.uniform(0.02, 0.3)).astype(np.float32))
    return out


def read_set(folder: Path, count: int) -> list[np.ndarray]:
    """The first clips of a shared set, 16 kHz."""
    lines = (folder / "manifest.jsonl").read_text().splitlines()[:count]
    paths = [folder / json.loads(line)["audio"] for line in lines]
    return [soundfile.read(path, dtype="float32")[0] for path in paths]
