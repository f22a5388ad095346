"""One adapter merged into its base, as a whole Whisper model that other programs load."""

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from safetensors.torch import save_file

from das_lib.adml.adapter import BaseShape, read_adapter
from das_lib.adml.bank import merge
from das_lib.adml.checkpoint import INDEX, WEIGHTS, read_checkpoint
from das_lib.errors import DasError
from das_lib.models.cache import RECORD

CT2_FILES = ("tokenizer.json", "preprocessor_config.json")
"""What faster-whisper looks for beside the converted weights."""


def export_hf(adapter: Path, base: Path, out: Path) -> None:
    """Write W + B A in the Hugging Face form, float32; ``out`` appears whole or not at all.

    Raises:
        ModelError: See `read_adapter` and `read_checkpoint`.
        DasError: ``out`` exists.
    """
    model = read_checkpoint(base)
    deltas = read_adapter(adapter.name, adapter, BaseShape.of(model.config)).deltas
    merged = {
        f"decoder.layers.{site}.weight": merge(model[f"decoder.layers.{site}.weight"], pair)
        for site, pair in deltas.items()
    }
    tensors = {name: merged.get(name, tensor.float()) for name, tensor in model.tensors.items()}

    def write(folder: Path) -> None:
        for file in base.iterdir():
            weights = file.name == INDEX or file.suffix == ".safetensors"
            if file.is_file() and not weights and file.name != RECORD:
                shutil.copyfile(file, folder / file.name)
        config = json.loads((base / "config.json").read_text(encoding="utf-8"))
        config.pop("torch_dtype", None)
        (folder / "config.json").write_text(json.dumps(config | {"dtype": "float32"}, indent=2))
        # proj_out is tied to the embedding and stands in no file; every other weight is a model.*
        named = {
            name if name.startswith("proj_out") else f"model.{name}": tensor.contiguous()
            for name, tensor in tensors.items()
        }
        save_file(named, folder / WEIGHTS, metadata={"format": "pt"})

    _whole(out, write)


def export_ct2(adapter: Path, base: Path, out: Path) -> None:
    """Write W + B A in CTranslate2's form, float32, for faster-whisper.

    Raises:
        ModelError: See `read_adapter` and `read_checkpoint`.
        DasError: ``out`` exists, or ctranslate2 is not installed.
    """
    try:
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise DasError(
            "--form is 'ct2', which needs the package ctranslate2; run: pip install ctranslate2, "
            "or choose hf"
        ) from error
    _refuse_existing(out)  # before the work
    with tempfile.TemporaryDirectory() as scratch:
        merged = Path(scratch) / "merged"
        export_hf(adapter, base, merged)
        files = [name for name in CT2_FILES if (merged / name).is_file()]

        def write(folder: Path) -> None:
            TransformersConverter(str(merged), copy_files=files).convert(str(folder), force=True)

        _whole(out, write)


def _whole(out: Path, write: Callable[[Path], None]) -> None:
    _refuse_existing(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as scratch:
        folder = Path(scratch) / "model"
        folder.mkdir()
        write(folder)
        folder.rename(out)


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise DasError(f"OUT: {out} exists; nothing is overwritten, so name a new folder")
