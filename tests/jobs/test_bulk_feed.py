"""The worker of bulk transcription beside replicas that are slow to start."""

import asyncio
import threading

from feeding import outcome_of
from ray import serve

from ray_jobs import bulk_feed

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

    def decode(file, **options):
        yield from real(file, **options)
        read.set()

    def await_app(app):
        assert read.wait(30), "nothing was read until the replicas were there"
        replicas.there = True

    real = bulk_feed.decode
    monkeypatch.setattr(serve, "get_app_handle", lambda app: replicas)
    monkeypatch.setattr(bulk_feed, "decode", decode)
    monkeypatch.setattr(bulk_feed, "await_app", await_app)
    names = [f"{i}.flac" for i in range(5)]
    outcome = outcome_of("late", tmp_path, **dict.fromkeys(names, 0.1))
    assert sorted(outcome.rows["id"].to_pylist()) == names
