"""From a name to files on this machine: one order of sources for models and for voices.

A local path, the hub's cache, what was converted before, the hub, the packages. What was converted
before comes ahead of the hub so that a second run is quick and needs no network.
"""

import logging
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from das_lib.errors import ModelError
from das_lib.models.cache import build_once, converted
from das_lib.models.catalog import CATALOG, PackagedModel
from das_lib.models.folders import voice_problem, weights_problem
from das_lib.models.hub import (
    NotHadError,
    cached_model,
    cached_voice,
    download_model,
    download_voice,
    voice_paths,
)
from das_lib.models.packages import assemble

logger = logging.getLogger(__name__)

KOKORO_MODEL, KOKORO_VOICES = "model.onnx", "voices.npz"


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A model or voice on this machine."""

    path: Path
    """Folder of a model, ``.onnx`` file of a voice."""
    source: str
    """``local path``, ``hub cache``, ``converted before``, ``hub`` or ``packages``."""


def resolve_model(name: str) -> Path:
    """Folder in Hugging Face form for a hub name or a local path.

    Raises:
        ModelError: no source has it whole and as safetensors; the text names the ways out.
    """
    return find_model(name).path


def resolve_voice(name: str) -> Path:
    """The ``.onnx`` file of a Piper voice, its ``.onnx.json`` beside it.

    Args:
        name: ``<language>_<REGION>-<speaker>-<quality>``, or a path that ends in ``.onnx``.

    Raises:
        ModelError: no source has it; the text names the ways out.
    """
    return find_voice(name).path


def find_model(name: str) -> Found:
    """``resolve_model`` with the source that answered."""
    folder = Path(name).expanduser()
    if folder.is_dir():
        if (problem := weights_problem(folder)) is not None:
            raise ModelError(
                f"model {name!r}: the folder {folder.resolve()} {problem}. Give a folder with "
                "config.json and model.safetensors (transformers' save_pretrained writes one)."
            )
        return Found(path=folder.resolve(), source="local path")
    if not re.fullmatch(r"[\w.-]+(/[\w.-]+)?", name) or name.startswith("."):
        raise ModelError(
            f"model {name!r}: there is no such folder, and it is no hub name (owner/model)."
        )
    return _first(
        "model",
        name,
        cached=cached_model,
        download=download_model,
        result=lambda folder: folder,
    )


def find_voice(name: str) -> Found:
    """``resolve_voice`` with the source that answered."""
    if name.endswith(".onnx"):
        onnx = Path(name).expanduser().resolve()
        if (problem := voice_problem(onnx)) is not None:
            raise ModelError(
                f"voice {name!r}: {onnx} {problem}. A Piper voice is two files, NAME.onnx and "
                "NAME.onnx.json, in one folder."
            )
        return Found(path=onnx, source="local path")
    if not voice_paths(name):
        raise ModelError(
            f"voice {name!r} is neither a path that ends in .onnx nor the name of a Piper voice "
            "(like en_US-joe-medium: language_REGION-speaker-quality)."
        )
    return _first(
        "voice",
        name,
        cached=cached_voice,
        download=download_voice,
        result=lambda folder: folder / f"{name}.onnx",
    )


def resolve_kokoro(name: str) -> Path:
    """The ``.onnx`` file of a Kokoro model, its voices in ``voices.npz`` beside it.

    Args:
        name: ``kokoro-82m-int8``, which comes as packages (with five voices, Japanese ones, that
            speak English too), or a path that ends in ``.onnx``.

    Raises:
        ModelError: there is none; the text names the ways out.
    """
    return find_kokoro(name).path


def find_kokoro(name: str) -> Found:
    """``resolve_kokoro`` with the source that answered."""
    row = CATALOG.get(name)
    if row is not None and row.form == "kokoro":
        if (folder := converted(name)) is not None:
            return Found(path=folder / KOKORO_MODEL, source="converted before")
        folder = build_once(name, lambda folder: _build(row, folder))
        return Found(path=folder / KOKORO_MODEL, source="packages")
    onnx = Path(name).expanduser().resolve()
    if onnx.suffix != ".onnx" or not onnx.is_file() or not (onnx.parent / KOKORO_VOICES).is_file():
        raise ModelError(
            f"voice {name!r}: Kokoro needs an .onnx file with its speakers in {KOKORO_VOICES} "
            "beside it, or the name kokoro-82m-int8, which comes as packages"
        )
    return Found(path=onnx, source="local path")


def _first(
    what: str,
    name: str,
    *,
    cached: Callable[[str], Path],
    download: Callable[[str], Path],
    result: Callable[[Path], Path],
) -> Found:
    """Asks the sources in order; ``result`` picks the answer out of a converted folder."""
    row = CATALOG.get(name)
    if row is not None and (row.form == "piper") != (what == "voice"):
        row = None
    reasons: list[str] = []
    try:
        return Found(path=cached(name), source="hub cache")
    except NotHadError as reason:
        reasons.append(str(reason))
    if row is not None and (folder := converted(name)) is not None:
        return Found(path=result(folder), source="converted before")
    try:
        return Found(path=download(name), source="hub")
    except NotHadError as reason:
        reasons.append(str(reason))
    if row is not None:
        logger.info("%s %s: %s; taking the packages", what, name, "; ".join(reasons))
        folder = build_once(name, lambda folder: _build(row, folder))
        return Found(path=result(folder), source="packages")
    form = "the .onnx file" if what == "voice" else "a folder with config.json and *.safetensors"
    forms = {"piper"} if what == "voice" else {"whisper-ct2", "gguf-llm", "transformers"}
    known = [r.name for r in CATALOG.values() if r.form in forms]
    raise ModelError(
        f"{what} {name!r} cannot be had: {'; '.join(reasons)}; no package carries it. Two ways "
        f"out: give a local path ({form}), or connect to the hub (HF_HUB_OFFLINE unset), or set "
        "HF_HOME to a cache that a connected machine has filled. Without a hub these names come "
        f"as packages: {', '.join(known)}."
    )


def _build(row: PackagedModel, folder: Path) -> dict[str, Any]:
    """Fills ``folder`` from the row's packages; returns the facts for the record."""
    source = folder / "source"
    source.mkdir()
    assemble(row, source)
    if row.form == "whisper-ct2":
        from das_lib.models.whisper_ct2 import convert_whisper

        convert_whisper(source, folder)
    elif row.form == "gguf-llm":
        from das_lib.models.gguf_llm import convert_gguf

        convert_gguf(source, folder)
    else:
        for file in row.files:
            (source / file.name).rename(folder / file.name)
    shutil.rmtree(source)
    return {
        "packages": [f"{package}=={version}" for package, version in row.packages.items()],
        "sha256": {file.name: file.sha256 for file in row.files},
        "licence": row.licence,
    }
