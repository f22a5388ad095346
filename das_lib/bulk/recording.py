"""One recording of a corpus: where its bytes are and which part of it is meant."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Recording:
    """A row of RECORDINGS (``schemas/bulk.py``); see there for units and nulls."""

    id: str
    """Unique in the corpus: the path below its root, or what the manifest says."""
    url: str
    """The file: a local path or an address such as ``s3://bucket/name``."""
    byte_offset: int | None = None
    """Where the recording begins in the file, if it is a member of a tar."""
    byte_length: int | None = None
    """How long that member is."""
    row: int | None = None
    """The row of a Parquet file whose column ``column`` holds the recording."""
    column: str | None = None
    """The Parquet column of bytes."""
    start_s: float = 0.0
    """Where the part to transcribe begins."""
    duration_s: float | None = None
    """How long it is; None: to the end."""
    channel: int | None = None
    """The channel to hear, from 0; None: the mean of all."""
    size: int | None = None
    """Bytes to read, where the listing knows them."""
    extra: str | None = None
    """The other columns of the manifest, a JSON object, for ``--join``."""

    def to_row(self) -> dict[str, Any]:
        """As a row of RECORDINGS."""
        # dataclasses.asdict copies every value, which takes most of the time of a listing.
        return {name: getattr(self, name) for name in self.__slots__}
