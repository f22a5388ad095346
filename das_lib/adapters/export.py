"""One adapter merged into its base, as a whole Whisper model that other programs load."""

import tempfile
from pathlib import Path

from das_lib.adml.adapter import BaseShape, read_adapter
from das_lib.adml.bank import merge
from das_lib.adml.checkpoint import read_checkpoint, write_checkpoint
from das_lib.errors import DasError
from das_lib.storage import whole_folder

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

    _refuse_existing(out)
    with whole_folder(out) as folder:
        write_checkpoint(base, tensors, folder)


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

        with whole_folder(out) as folder:
            TransformersConverter(str(merged), copy_files=files).convert(str(folder), force=True)


def _refuse_existing(out: Path) -> None:
    if out.exists():
        raise DasError(f"OUT: {out} exists; nothing is overwritten, so name a new folder")
