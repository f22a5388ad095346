"""Tars and Parquet files of recordings, and what a listing finds in them."""

import io
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq

from das_lib.bulk.sources import list_recordings
from das_lib.errors import Reject
from schemas.bulk import RECORDINGS
from schemas.validate import validate

MEMBERS = [(f"{number}.wav", bytes([number]) * 600) for number in range(4)]


def listed(source):
    """Recordings, rejects and the number of the skipped."""
    listing = list_recordings(str(source))
    items = list(listing)
    good = [item for item in items if not isinstance(item, Reject)]
    validate(pa.Table.from_pylist([r.to_row() for r in good], schema=RECORDINGS), RECORDINGS)
    ids = [item.id for item in items]
    assert len(ids) == len(set(ids))
    return good, [item for item in items if isinstance(item, Reject)], listing.skipped


def tar_bytes(*members, format=tarfile.PAX_FORMAT):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=format) as tar:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def write_tar(path, *members, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(tar_bytes(*members, **options))
    return path


AUDIO = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def write_parquet(path, columns, rows_per_group=3):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path, row_group_size=rows_per_group)
    return path


def sound(row):
    return f"sound {row}".encode() * (row + 1)
