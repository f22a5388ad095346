"""One LoRA adapter of the decoder, read from a PEFT folder and checked against its base.

Shape suffixes: R rank, I input width, O output width of a projection.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from das_lib.errors import ModelError

CONFIG_FILE = "adapter_config.json"
WEIGHTS_FILE = "adapter_model.safetensors"

_ATTENTION = tuple(
    f"{block}.{projection}"
    for block in ("self_attn", "encoder_attn")
    for projection in ("q_proj", "k_proj", "v_proj", "out_proj")
)
_TENSOR = re.compile(
    r"(?:base_model\.model\.)?(?:model\.)?decoder\.layers\.(?P<layer>\d+)\."
    r"(?P<site>(?:self_attn|encoder_attn)\.(?:q|k|v|out)_proj|fc1|fc2)\.lora_(?P<half>[AB])\.weight"
)
_CHANGED_BASE = ("pissa", "olora", "corda", "loftq", "lora_ga")
_PLAIN_ONLY = {
    "use_dora": "DoRA rescales the base weights, which the branches share",
    "use_qalora": "QA-LoRA pools the inputs",
    "use_bdlora": "block-diagonal LoRA is not supported",
    "lora_bias": "the branches share the base's biases",
    "modules_to_save": "the branches share the base's modules",
    "trainable_token_indices": "the branches share the base's embeddings",
    "target_parameters": "only decoder projections can be adapted",
    "layer_replication": "the branches share the base's layers",
    "alora_invocation_tokens": "activated LoRA is not supported",
    "arrow_config": "routing between adapters is not supported",
    "kasa_config": "KaSA rescales the base weights, which the branches share",
    "monteclora_config": "MonteCLoRA is not supported",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseShape:
    """The sizes of a Whisper decoder that an adapter has to fit."""

    layers: int
    d_model: int
    d_ffn: int

    @classmethod
    def of(cls, base: Any) -> "BaseShape":
        """Read the sizes from a model, its configuration, or its folder.

        Raises:
            ModelError: The folder holds no Whisper ``config.json``.
        """
        if isinstance(base, (str, Path)):
            config = _read_json("base model", Path(base) / "config.json")
        else:
            config = getattr(base, "config", base)
            config = config if isinstance(config, dict) else config.to_dict()
        try:
            return cls(
                layers=config["decoder_layers"],
                d_model=config["d_model"],
                d_ffn=config["decoder_ffn_dim"],
            )
        except KeyError as error:
            raise ModelError(
                f"base model: its configuration has no {error.args[0]!r} (model_type "
                f"{config.get('model_type')!r}); name a Whisper model"
            ) from error

    def sites(self) -> dict[str, tuple[int, int]]:
        """Every projection that an adapter may change, with its (output, input) widths."""
        d, f = self.d_model, self.d_ffn
        shapes = {**dict.fromkeys(_ATTENTION, (d, d)), "fc1": (f, d), "fc2": (d, f)}
        return {f"{i}.{site}": shape for i in range(self.layers) for site, shape in shapes.items()}


@dataclass(frozen=True, slots=True)
class Adapter:
    """The changes ``B_OR @ A_RI`` of one adapter by site, float32, its scaling folded into B."""

    name: str
    deltas: Mapping[str, tuple[torch.Tensor, torch.Tensor]]


def read_adapter(name: str, folder: Path, base: BaseShape) -> Adapter:
    """Read a PEFT LoRA folder: any rank, alpha, scaling and subset of decoder projections.

    Args:
        name: What the user calls the adapter; every message begins with it.
        folder: Holds ``adapter_config.json`` and ``adapter_model.safetensors``.
        base: The sizes of the decoder that the adapter will run on.

    Raises:
        ModelError: The folder is unreadable, or the adapter is none that can share its base with
            other branches (see the table of refusals above), or it changes nothing.
    """
    where = f"adapter {name!r}"
    config = _read_json(where, folder / CONFIG_FILE)
    _check_config(where, config)
    halves = _sort_tensors(where, _read_weights(where, folder), base)
    deltas = {site: _delta(where, site, config, pair) for site, pair in halves.items()}
    if not any(a.any() and b.any() for a, b in deltas.values()):
        raise ModelError(
            f"{where}: lora_B is 0 at all {len(deltas)} projections, at least one value has to "
            "differ from 0 for the adapter to change a logit; train it before use"
        )
    return Adapter(name, deltas)


def _read_json(where: str, path: Path) -> dict[str, Any]:
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        # A training's dataset keeps its adapter in a folder of its own.
        below = next((str(found.parent) for found in path.parent.glob(f"*/{path.name}")), None)
        raise ModelError(
            f"{where}: {path} cannot be read ({error.strerror}); "
            f"name {below or 'a folder that holds it'}"
        ) from error
    except ValueError as error:
        raise ModelError(f"{where}: {path} is no JSON ({error}); write the folder anew") from error
    if not isinstance(config, dict):
        raise ModelError(
            f"{where}: {path} holds a {type(config).__name__}, not an object; write the folder anew"
        )
    return config


def _read_weights(where: str, folder: Path) -> dict[str, torch.Tensor]:
    path = folder / WEIGHTS_FILE
    if not path.is_file():
        found = sorted(p.name for p in folder.glob("adapter_model*")) or "nothing"
        raise ModelError(
            f"{where}: {path} is missing (found {found}); only safetensors are read, so save with "
            "save_pretrained(folder, safe_serialization=True)"
        )
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise ModelError(f"{where}: {path} is damaged ({error}); save it again") from error


def _check_config(where: str, config: dict[str, Any]) -> None:
    if config.get("peft_type") != "LORA":
        raise ModelError(
            f"{where}: peft_type is {config.get('peft_type')!r}, it must be 'LORA'; "
            "train the adapter as LoRA"
        )
    init = config.get("init_lora_weights")
    if isinstance(init, str) and init.lower().startswith(_CHANGED_BASE):
        raise ModelError(
            f"{where}: init_lora_weights is {init!r}, it must be true: this initialisation changes "
            "the base's weights, which the branches share; convert it to plain LoRA with "
            "save_pretrained(folder, path_initial_model_for_weight_conversion=INITIAL_ADAPTER)"
        )
    for field, reason in _PLAIN_ONLY.items():
        if config.get(field):
            raise ModelError(
                f"{where}: {field} is {config[field]!r}, it must be off: {reason}; "
                "train the adapter as plain LoRA"
            )
    if config.get("bias", "none") != "none":
        raise ModelError(
            f"{where}: bias is {config['bias']!r}, it must be 'none': the branches share the "
            "base's biases; train the adapter with bias='none'"
        )


def _sort_tensors(
    where: str, tensors: dict[str, torch.Tensor], base: BaseShape
) -> dict[str, tuple[torch.Tensor, torch.Tensor]]:
    """Pair the tensors by site and check names, shapes and values."""
    shapes = base.sites()
    halves: dict[str, dict[str, torch.Tensor]] = {}
    for key, tensor in tensors.items():
        match = _TENSOR.fullmatch(key)
        if match is None:
            raise ModelError(
                f"{where}: target_modules reaches {key!r}, which is no projection of the decoder; "
                f"it may hold {', '.join((*_ATTENTION, 'fc1', 'fc2'))} of decoder layers"
            )
        site = f"{match['layer']}.{match['site']}"
        if site not in shapes:
            raise ModelError(
                f"{where}: it changes decoder layer {match['layer']}, the base has layers "
                f"0 to {base.layers - 1}; load the adapter on the base that it was trained on"
            )
        axis, width = (1, shapes[site][1]) if match["half"] == "A" else (0, shapes[site][0])
        if tensor.ndim != 2 or tensor.shape[axis] != width:
            raise ModelError(
                f"{where}: {key} has shape {list(tensor.shape)}, the base needs {width} on axis "
                f"{axis}; load the adapter on the base that it was trained on"
            )
        if not torch.isfinite(tensor).all():
            bad = int((~torch.isfinite(tensor)).sum())
            raise ModelError(
                f"{where}: {key} has {bad} values that are not finite, 0 are allowed; "
                "take a checkpoint from before the training diverged"
            )
        halves.setdefault(site, {})[match["half"]] = tensor.float()
    if not halves:
        raise ModelError(
            f"{where}: {WEIGHTS_FILE} matches 0 projections of the decoder, at least 1 is needed; "
            "check target_modules of the training"
        )
    for site, pair in halves.items():
        if set(pair) != {"A", "B"}:
            raise ModelError(
                f"{where}: {site} has lora_{'/'.join(pair)} alone, it needs lora_A and lora_B; "
                "save the adapter again"
            )
    return {site: (pair["A"], pair["B"]) for site, pair in halves.items()}


def _delta(
    where: str, site: str, config: dict[str, Any], pair: tuple[torch.Tensor, torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    """Fold PEFT's scaling, alpha / r or alpha / sqrt(r), into B."""
    a_RI, b_OR = pair
    rank = _by_pattern(config.get("rank_pattern"), site, config.get("r", 8))
    alpha = _by_pattern(config.get("alpha_pattern"), site, config.get("lora_alpha", 8))
    if not a_RI.shape[0] == b_OR.shape[1] == rank:
        raise ModelError(
            f"{where}: r is {rank} for {site}, the weights have rank {a_RI.shape[0]} (lora_A) and "
            f"{b_OR.shape[1]} (lora_B); the configuration belongs to other weights, save again"
        )
    scaling = alpha / (math.sqrt(rank) if config.get("use_rslora") else rank)
    return a_RI, b_OR * scaling


def _by_pattern(pattern: dict[str, Any] | None, site: str, default: Any) -> Any:
    """PEFT's ``rank_pattern`` and ``alpha_pattern``: the first key that ends the module's name."""
    module = f"base_model.model.model.decoder.layers.{site}"
    for key, value in (pattern or {}).items():
        if re.match(rf"(.*\.)?({key})$", module):
            return value
    return default
