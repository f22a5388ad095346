"""The worker of bulk transcription beside replicas that are slow to start."""

import asyncio
import threading

import numpy as np
import pyarrow as pa
from ray import serve

from das_lib.bulk.hear import HearSettings
from das_lib.bulk.recording import Recording
from das_lib.speech.audio import to_flac
from ray_jobs import bulk_feed
from schemas.bulk import RECORDINGS

ANSWER = {"text": "", "language": "en", "words": [], "avg_logprob": 0.0} | {
    "temperature": 0.0,
    "no_speech_prob": 0.0,
}


class Replicas:
    """A handle whose replicas are there once `await_app` has returned."""

    there = False

    @property
    def transcribe(self):
        return self

    def remote(self, request):
        assert self.there, "asked before they were there"
        answer = asyncio.get_running_loop().create_future()
        answer.set_result({"base": ANSWER})
        return answer


def test_the_first_recordings_are_read_while_the_replicas_start(tmp_path, monkeypatch):
    replicas, read = Replicas(), threading.Event()

    def decode(file, **_):
        yield np.full(8000, 0.1, np.float32)
        read.set()

    def await_app(app):
        assert read.wait(30), "nothing was read until the replicas were there"
        replicas.there = True

    monkeypatch.setattr(serve, "get_app_handle", lambda app: replicas)
    monkeypatch.setattr(bulk_feed, "decode", decode)
    monkeypatch.setattr(bulk_feed, "await_app", await_app)
    names = [f"{i}.flac" for i in range(5)]
    for name in names:
        (tmp_path / name).write_bytes(to_flac(np.full(8000, 0.1, np.float32)))
    feed = bulk_feed.BulkFeed(
        "late",
        bulk_feed.Listener(
            settings=HearSettings(),
            vad=False,
            system="base",
            branches=("base",),
            language="en",
            model="engine",
            adapters=(),
            windows_at_once=2,
        ),
    )
    rows = [Recording(id=name, url=str(tmp_path / name)).to_row() for name in names]
    outcome = asyncio.run(feed(pa.Table.from_pylist(rows, schema=RECORDINGS), ["corpus"]))
    assert sorted(outcome["corpus"].rows["id"].to_pylist()) == names
