"""What the name of a file says: whether it is audio, an archive, or left out."""

AUDIO_SUFFIXES = (
    *(".wav", ".wave", ".w64", ".rf64", ".sph", ".aif", ".aiff", ".aifc", ".au", ".snd", ".caf"),
    *(".flac", ".mp3", ".mp2", ".mpga", ".ogg", ".oga", ".opus", ".spx", ".wma", ".amr", ".ac3"),
    *(".m4a", ".m4b", ".aac", ".mka", ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".3gp"),
)
"""Endings of files with sound, videos included, in lower case."""
TAR_SUFFIX = ".tar"
PARQUET_SUFFIX = ".parquet"
COMPRESSED_TAR_SUFFIXES = (".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
TEXT_MANIFEST_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv")
"""Endings of manifests; each may be followed by ``.gz``."""


def is_audio(name: str) -> bool:
    """Whether the ending is one of `AUDIO_SUFFIXES`."""
    return name.lower().endswith(AUDIO_SUFFIXES)


def is_tar(name: str) -> bool:
    """Whether the ending is a tar's, compressed or not."""
    return name.lower().endswith((TAR_SUFFIX, *COMPRESSED_TAR_SUFFIXES))


def is_left_out(name: str) -> bool:
    """Whether a path below a root is hidden, or is not yet whole (``*.tmp``).

    A part that begins with a dot hides all below it; ``.`` and ``..`` hide nothing.
    """
    return any(
        (part.startswith(".") and part not in (".", "..")) or part.lower().endswith(".tmp")
        for part in name.split("/")
    )


def manifest_suffix(name: str) -> str | None:
    """The ending of a manifest without ``.gz``, or None if the name is no manifest's."""
    name = name.lower()
    if name.endswith(PARQUET_SUFFIX):
        return PARQUET_SUFFIX
    name = name.removesuffix(".gz")
    return next((suffix for suffix in TEXT_MANIFEST_SUFFIXES if name.endswith(suffix)), None)


def resolve(folder: str, path: str) -> str:
    """Address of a path that is written in a file of ``folder``."""
    if "://" in path:
        return path.removeprefix("file://")
    return path if path.startswith("/") else f"{folder}/{path}"


def is_name(text: str) -> bool:
    """Whether a text can be stored and opened: it is UTF-8 and has no NUL."""
    return "\0" not in text and printable(text) == text


def printable(text: str) -> str:
    """The text with escapes for what is not UTF-8, so that it can be stored and shown."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")
