"""The one resolver for models and voices: local path, hub cache, converted, hub, packages."""

from das_lib.models.load import load_whisper
from das_lib.models.resolve import (
    Found,
    find_kokoro,
    find_model,
    find_voice,
    resolve_kokoro,
    resolve_model,
    resolve_voice,
)

__all__ = [
    "Found",
    "find_kokoro",
    "find_model",
    "find_voice",
    "load_whisper",
    "resolve_kokoro",
    "resolve_model",
    "resolve_voice",
]
