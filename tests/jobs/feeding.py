"""A worker of bulk transcription in this process, and what it makes of recordings."""

import asyncio

import numpy as np
import pyarrow as pa

from das_lib.bulk.hear import HearSettings
from das_lib.bulk.recording import Recording
from das_lib.rows import Outcome
from das_lib.speech.audio import to_flac
from ray_jobs.bulk_feed import BulkFeed, Listener
from schemas.bulk import RECORDINGS


def outcome_of(app, folder, **levels) -> Outcome:
    """What a worker that asks the app makes of half-second recordings of those levels."""
    for name, level in levels.items():
        (folder / name).write_bytes(to_flac(np.full(8000, level, np.float32)))
    table = [Recording(id=name, url=str(folder / name)).to_row() for name in levels]
    listener = Listener(
        settings=HearSettings(),
        vad=False,
        system="base",
        branches=("base",),
        language="en",
        model="engine",
        adapters=(),
        windows_at_once=8,
    )
    feed = BulkFeed(app, listener)
    rows = pa.Table.from_pylist(table, schema=RECORDINGS)
    return asyncio.run(feed(rows, ["corpus"]))["corpus"]
