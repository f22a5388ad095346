"""A safe file name for any id."""

import hashlib

from das_lib.bulk.formats import FORMATS
from das_lib.storage import TEMPORARY_SUFFIX

MAX_COMPONENT_BYTES = 200  # of 255; the rest is for our suffixes and `Folder.write`'s
MAX_NAME_BYTES = 700  # of the 1024 that S3 allows; the rest is for the folder's own address
_KEPT_BYTES = 100
_UNSAFE = frozenset('%\\:*?"<>|')
_ENDINGS = (*(f".{format}" for format in FORMATS), TEMPORARY_SUFFIX)


def file_name(id: str, format: str) -> str:
    """Where the transcript of a recording goes, below the folder of its format.

    ``calls/a.wav`` becomes ``calls/a.wav.srt``: folders stay folders, and the audio's ending stays
    because ``a.mp3`` may be there too. What is unsafe in a name is percent-encoded, what is too
    long is cut and gets a hash. The name never leaves the folder, two ids never share one, and no
    id's file is another's folder, on file systems that tell capitals from small letters.
    """
    *folders, name = id.split("/")
    parts = [_folder(_component(folder)) for folder in folders]
    path = "/".join([*parts, f"{_component(name)}.{format}"])
    if len(path.encode()) > MAX_NAME_BYTES:
        path = f"{_shortened(_component(name), id)}.{format}"
    return path


def _component(text: str) -> str:
    """One folder or file name; a ``%`` that no hex digit follows is written nowhere else."""
    if text in ("", ".", ".."):
        return text.replace(".", "%2E") or "%"
    safe = "".join(c if c.isprintable() and c not in _UNSAFE else _encoded(c) for c in text)
    return safe if len(safe.encode()) <= MAX_COMPONENT_BYTES else _shortened(safe, text)


def _folder(name: str) -> str:
    """A folder's name that no file of ours, whole or temporary, has."""
    if not name.endswith(_ENDINGS):
        return name
    stem, _, ending = name.rpartition(".")
    return f"{stem}%2E{ending}"


def _shortened(safe: str, text: str) -> str:
    start = safe.encode()[:_KEPT_BYTES].decode(errors="ignore")
    return f"{start}%-{hashlib.sha256(_bytes(text)).hexdigest()[:32]}"


def _encoded(character: str) -> str:
    return "".join(f"%{byte:02X}" for byte in _bytes(character))


def _bytes(text: str) -> bytes:
    # Names of local files that are no UTF-8 reach Python as lone surrogates.
    return text.encode(errors="surrogatepass")
