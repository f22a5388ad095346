"""The hub and its cache; every answer is a path to something whole, or the reason why not."""

import re
from pathlib import Path

from das_lib.models.folders import model_problem, voice_problem

ETAG_TIMEOUT_S = 5.0
"""A hub that does not answer in this time counts as unreachable."""

VOICES_REPO = "rhasspy/piper-voices"
_VOICE = re.compile(r"(?P<lang>[a-z]{2,3})_(?P<region>[A-Z]{2})-(?P<name>\w+)-(?P<quality>\w+)")
_WANTED = ["*.safetensors", "*.safetensors.index.json", "*.json", "*.txt", "*.jinja", "*.model"]
_UNWANTED = ["original/*", "onnx/*", "*.fp32*"]


class NotHadError(Exception):
    """This source cannot give the model; the text says why and becomes part of the final error."""


def cached_model(name: str) -> Path:
    """The model's snapshot in the hub's cache, if it is whole; no network.

    Raises:
        NotHadError: absent, in part, or with pickled weights only.
    """
    config = _cached_file(name, "config.json")
    if config is None:
        raise NotHadError("it is not in the hub's cache")
    if (problem := model_problem(config.parent)) is not None:
        raise NotHadError(f"its folder in the hub's cache ({config.parent}) {problem}")
    return config.parent


def download_model(name: str) -> Path:
    """Fetches safetensors, configs and tokenizer from the hub; never pickled weights.

    Raises:
        NotHadError: the hub is unreachable or not to be asked, or has no such safetensors model.
    """
    folder = _download(name, _WANTED, _UNWANTED)
    if (problem := model_problem(folder)) is not None:
        raise NotHadError(f"what the hub gave ({folder}) {problem}")
    return folder


def voice_paths(name: str) -> list[str]:
    """The two files of a Piper voice in its repository; empty if the name is not a voice's.

    ``en_US-joe-medium`` -> ``en/en_US/joe/medium/en_US-joe-medium.onnx`` and ``.onnx.json``.
    """
    match = _VOICE.fullmatch(name)
    if match is None:
        return []
    lang, region, speaker, quality = match.groups()
    stem = f"{lang}/{lang}_{region}/{speaker}/{quality}/{name}.onnx"
    return [f"{stem}.json", stem]


def cached_voice(name: str) -> Path:
    """The voice's .onnx in the hub's cache; no network.

    Raises:
        NotHadError: absent or without its .onnx.json.
    """
    onnx = _cached_file(VOICES_REPO, voice_paths(name)[1])
    if onnx is None:
        raise NotHadError("it is not in the hub's cache")
    if (problem := voice_problem(onnx)) is not None:
        raise NotHadError(f"{onnx} {problem}")
    return onnx


def download_voice(name: str) -> Path:
    """Fetches a Piper voice from the hub.

    Raises:
        NotHadError: the hub is unreachable or not to be asked, or has no such voice.
    """
    paths = voice_paths(name)
    onnx = _download(VOICES_REPO, paths) / paths[1]
    if (problem := voice_problem(onnx)) is not None:
        raise NotHadError(f"in the hub's {VOICES_REPO}, {paths[1]} {problem}")
    return onnx


def _download(repo: str, wanted: list[str], unwanted: list[str] | None = None) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        CachedRepoTreeNotFoundError,
        HFValidationError,
        HTTPError,
        RevisionResolutionError,
        XetDownloadError,
    )

    # OSError covers the client's offline and not-found errors, HTTPError those of its transport.
    errors = (
        CachedRepoTreeNotFoundError,
        HFValidationError,
        HTTPError,
        OSError,
        RevisionResolutionError,
        XetDownloadError,
    )

    try:
        # Unlike hf_hub_download, this does not retry for 20 s where there is no network.
        return Path(
            snapshot_download(
                repo,
                allow_patterns=wanted,
                ignore_patterns=unwanted,
                etag_timeout=ETAG_TIMEOUT_S,
            )
        )
    except errors as error:
        raise NotHadError(_why(error)) from error


def _cached_file(repo: str, path: str) -> Path | None:
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(repo, path)
    # A dangling link (its blob was pruned) and "known to be absent" are both no file.
    return Path(found) if isinstance(found, str) and Path(found).is_file() else None


def _why(error: Exception) -> str:
    from huggingface_hub.errors import (
        GatedRepoError,
        HFValidationError,
        OfflineModeIsEnabled,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
    )

    chain: list[BaseException] = [error]
    while (inner := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(inner)
    for link in chain:
        if isinstance(link, GatedRepoError):
            return "the hub lends it only after a login (`hf auth login`) by an accepted account"
        if isinstance(link, (RepositoryNotFoundError, RemoteEntryNotFoundError)):
            return "the hub answers that there is no public model of that name"
        if isinstance(link, HFValidationError):
            return "it is no hub name (owner/model)"
        if isinstance(link, OfflineModeIsEnabled):
            return "the hub was not asked (HF_HUB_OFFLINE is set)"
    return f"it cannot be fetched from the hub ({type(chain[-1]).__name__}: {chain[-1]})"
