"""The server over HTTP: real Serve, OpenAI's own client, and replicas that answer by rule."""

import asyncio
import io
import os
import socket
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path

import httpx2
import numpy as np
import openai
import psutil
import pytest
import soundfile
from ray import serve

from das_lib.bulk.api import FORM_BYTES, Limits
from das_lib.bulk.hear import HearSettings
from das_lib.errors import DasError, Reject
from das_lib.speech.audio import SAMPLE_RATE
from ray_jobs.listen import FRONT, Setup, front, start_http

pytestmark = pytest.mark.ray

SPEECH = Path("data/eval/librivox/audio")
TALK = SPEECH / "sense-and-sensibility-01-0890.flac"  # 5.3 s
TEXT = "Second0 second1 second2 second3 second4."
REJECTED = SPEECH / "sense-and-sensibility-01-0880.flac"
FAILS = SPEECH / "sense-and-sensibility-01-0930.flac"
KILLS = SPEECH / "sense-and-sensibility-01-0920.flac"
HANGS = SPEECH / "sense-and-sensibility-01-0870.flac"

TOKEN = "s3cret"
BASE = Limits(max_bytes=8 * 2**20, max_seconds=600, timeout_s=60)
TIGHT = Limits(
    max_concurrent=2, max_waiting=2, timeout_s=4, max_bytes=2**20, max_uploading=2**20 + FORM_BYTES
)
GIGABYTE = 2**30
BLOCK = b"\0" * 2**20


def fake(lengths: dict[str, int]) -> serve.Application:
    """Replicas that hear a word in each second; what else they do is told by the length."""

    class Recognizer:
        hanging = 0

        async def count_hanging(self):
            return self.hanging

        async def hang(self):
            self.hanging += 1
            try:
                await asyncio.sleep(3600)
            finally:
                self.hanging -= 1

        async def transcribe(self, request):
            audio, systems, times, _ = request
            if len(audio) == lengths["rejected"]:
                return Reject("", "not-finite", "3 samples not finite")
            if len(audio) == lengths["fails"]:
                raise ZeroDivisionError
            if len(audio) == lengths["kills"]:
                os._exit(1)
            if len(audio) == lengths["hangs"]:
                await self.hang()
            await asyncio.sleep(0.05)
            seconds = len(audio) // SAMPLE_RATE
            texts = [f"{'s' if i else 'S'}econd{i}" for i in range(seconds)]
            texts[-1] += "."
            words = [
                {
                    "text": text,
                    "branch": i % 2,
                    "confidence": 0.5,
                    "start_s": float(i) if times else None,
                    "end_s": i + 1.0 if times else None,
                }
                for i, text in enumerate(texts)
            ]
            columns = {
                "text": " ".join(texts),
                "language": "en",
                "avg_logprob": -0.25,
                "temperature": 0.0,
                "no_speech_prob": 0.125,
                "words": words,
                "batch": 1,
            }
            return {system: columns for system in systems}

    deployment = serve.deployment(max_ongoing_requests=64, ray_actor_options={"num_cpus": 0})
    return deployment(Recognizer).bind()


def test_a_port_that_is_taken_is_named(two_cpus):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(DasError, match=f"--port={port} of --host=127.0.0.1 is in use"):
            start_http("127.0.0.1", port, None, BASE)


@pytest.fixture(scope="module")
def url(two_cpus):
    """The server; below ``/tight`` another one that takes little and needs no token."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    start_http("127.0.0.1", port, TOKEN, BASE)
    files = {"rejected": REJECTED, "fails": FAILS, "kills": KILLS, "hangs": HANGS}
    lengths = {name: soundfile.info(path).frames for name, path in files.items()}
    serve.run(fake(lengths), name="replicas", route_prefix=None)
    models = {"base": "base", "music": "lora:music", "das": "das"}
    big = Setup(
        replicas="replicas",
        models=models,
        branches=("base", "music"),
        limits=BASE,
        token=TOKEN,
        language="en",
        settings=HearSettings(),
        vad=True,
    )
    tight = replace(big, limits=TIGHT, token=None)
    targets = (
        serve.RunTarget(front(big), FRONT, "/"),
        serve.RunTarget(front(tight), "tight", "/tight"),
    )
    serve.run_many(targets)
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", api_key=TOKEN, max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def tight(url):
    with openai.OpenAI(base_url=f"{url}/tight/v1", api_key="none", max_retries=0) as client:
        yield client


def transcribe(client, file=TALK, **fields):
    return client.audio.transcriptions.create(file=file, **{"model": "das", **fields})


def refused(call, *arguments, **fields):
    """Status, code and field of the error that a call ends with."""
    with pytest.raises(openai.APIStatusError) as error:
        call(*arguments, **fields)
    assert error.value.response.headers["content-type"] == "application/json"
    return error.value.status_code, error.value.code, error.value.param


@pytest.mark.parametrize("model", ["base", "music", "das"])
def test_every_model_answers_with_json(client, model):
    assert transcribe(client, model=model).text == TEXT


@pytest.mark.parametrize(
    ("format", "answer"),
    [
        ("text", f"{TEXT}\n"),
        ("srt", f"1\n00:00:00,000 --> 00:00:05,300\n{TEXT}\n\n"),
        ("vtt", f"WEBVTT\n\n00:00:00.000 --> 00:00:05.300\n{TEXT}\n"),
    ],
    ids=["text", "srt", "vtt"],
)
def test_text_comes_in_its_format(client, format, answer):
    assert transcribe(client, response_format=format) == answer


def test_verbose_json_has_segments_and_the_words_that_are_asked_for(client):
    plain = transcribe(client, response_format="verbose_json")
    assert (plain.text, plain.language, plain.duration) == (TEXT, "english", 5.3)
    assert [segment.text for segment in plain.segments] == [f" {TEXT}"]
    assert plain.words is None
    timed = transcribe(
        client, response_format="verbose_json", timestamp_granularities=["word"], language="en"
    )
    assert timed.segments is None
    assert " ".join(word.word for word in timed.words) == TEXT
    assert (timed.words[1].start, timed.words[1].end) == (1.0, 2.0)


def test_models_are_listed(client):
    assert [model.id for model in client.models.list()] == ["base", "music", "das"]
    assert client.models.retrieve("music").id == "music"
    assert refused(client.models.retrieve, "whisper-1") == (404, "model_not_found", "model")


def test_whoever_has_no_token_is_told_and_health_is_open(url):
    for key in ("wrong", f"{TOKEN}x"):
        with openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0) as client:
            assert refused(transcribe, client) == (401, "invalid_api_key", None)
            assert refused(client.models.list) == (401, "invalid_api_key", None)
    assert httpx2.post(f"{url}/v1/audio/transcriptions").status_code == 401
    health = httpx2.get(f"{url}/health")
    assert (health.status_code, health.json()["replicas"]) == (200, 1)


REFUSED = {
    "model": ({"model": "whisper-1"}, (404, "model_not_found", "model")),
    "language": ({"language": "de"}, (400, "unsupported_value", "language")),
    "prompt": ({"prompt": "a name"}, (400, "unsupported_parameter", "prompt")),
    "temperature": ({"temperature": 0.5}, (400, "unsupported_value", "temperature")),
    "stream": ({"stream": True}, (400, "unsupported_value", "stream")),
    "not audio": ({"file": ("a.wav", b"no sound")}, (400, "not-audio", "file")),
    "empty": ({"file": ("a.wav", b"")}, (400, "empty-audio", "file")),
    "large": ({"file": ("a.wav", BLOCK * 9)}, (413, "file_too_large", "file")),
    "rejected": ({"file": REJECTED}, (400, "not-finite", "file")),
    "bug": ({"file": FAILS}, (500, "internal_error", None)),
}


@pytest.mark.parametrize(("fields", "answer"), REFUSED.values(), ids=REFUSED)
def test_errors_have_the_form_that_the_client_knows(client, fields, answer):
    assert refused(transcribe, client, **fields) == answer


FORM = {"content-type": "multipart/form-data; boundary=x"}
WAV = ("a.wav", b"")
STRANGE = {
    "url": ({"url": "/v1/audio/speech"}, (404, "unknown_url")),
    "method": ({"method": "GET"}, (405, "method_not_allowed")),
    "type": ({}, (400, "invalid_content_type")),
    "no file": ({"files": {"model": (None, b"das")}}, (400, "missing_required_parameter")),
    "two files": ({"files": {"file": WAV, "other": WAV}}, (400, "bad_request")),
    "large": ({"files": {"file": WAV}, "data": {"model": "d" * 2**17}}, (400, "bad_request")),
    "no form": ({"content": b"--x\r\nno form", "headers": FORM}, (400, "bad_request")),
}


@pytest.mark.parametrize(("sent", "answer"), STRANGE.values(), ids=STRANGE)
def test_whatever_comes_is_answered_in_that_form(url, sent, answer):
    request = {"method": "POST", "url": "/v1/audio/transcriptions", **sent}
    with httpx2.Client(base_url=url, headers={"authorization": f"Bearer {TOKEN}"}) as http:
        response = http.request(**request)
    assert (response.status_code, response.json()["error"]["code"]) == answer


def test_names_of_files_are_no_paths(client, tmp_path):
    victim = tmp_path / "victim.flac"
    victim.write_bytes(HANGS.read_bytes())
    audio = TALK.read_bytes()
    for name in (
        str(victim),
        "../" * 9 + str(victim),
        "..\\..\\victim.flac",
        'a"; filename="/etc/passwd',
        "a\r\nX-Header: b",
        "%00.flac",
        "über 音.flac",
        "x" * 3000,
    ):
        assert transcribe(client, (name, audio)).text == TEXT
    assert victim.read_bytes() == HANGS.read_bytes()
    assert refused(transcribe, client, ("x" * 10_000, audio))[0] == 400


def silence(seconds: int, *, says_length: bool) -> bytes:
    """FLAC of zeros, with or without its length in the header, as if written to a pipe."""
    buffer = io.BytesIO()
    zeros = np.zeros(seconds * SAMPLE_RATE, np.int16)
    soundfile.write(buffer, zeros, SAMPLE_RATE, format="FLAC", subtype="PCM_16")
    flac = bytearray(buffer.getvalue())
    if not says_length:
        flac[21] &= 0xF0  # STREAMINFO: 36 bits of samples
        flac[22:26] = bytes(4)
    return bytes(flac)


@pytest.mark.parametrize("says_length", [True, False])
def test_an_hour_of_silence_is_too_long_however_small(client, says_length):
    file = ("hour.flac", silence(3600, says_length=says_length))
    assert len(file[1]) < 2**20
    assert refused(transcribe, client, file) == (413, "too-long", "file")


def test_silence_that_is_short_enough_is_an_empty_text(client):
    assert transcribe(client, ("short.flac", silence(60, says_length=False))).text == ""


def peak_mib(title: str) -> int:
    """Peak memory of the one process of our Ray with this title, MiB."""
    workers = psutil.Process().children(recursive=True)
    (pid,) = [worker.pid for worker in workers if title in " ".join(worker.cmdline())]
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


@pytest.mark.parametrize("says_length", [True, False])
def test_a_gigabyte_is_refused_unread(url, says_length):
    sent = 0

    def body():
        nonlocal sent
        yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.wav"\r\n\r\n'
        while sent < GIGABYTE:
            yield BLOCK
            sent += len(BLOCK)
            time.sleep(0.005)  # a fast network's rate; without, it is a race of processes

    headers = {"authorization": f"Bearer {TOKEN}", **FORM}
    if says_length:
        headers["content-length"] = str(GIGABYTE + 2**10)
    kinds = f"ServeReplica:{FRONT}", "ProxyActor"
    before = [peak_mib(kind) for kind in kinds]
    response = httpx2.post(f"{url}/v1/audio/transcriptions", content=body(), headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "file_too_large")
    assert sent < GIGABYTE // 4
    for kind, peak in zip(kinds, before, strict=True):
        assert peak_mib(kind) < peak + 128


def test_under_overload_every_request_is_answered_or_refused_at_once(url, tight):
    async def one(client):
        try:
            return (await client.audio.transcriptions.create(file=TALK, model="das")).text
        except openai.RateLimitError as error:
            return error.code, error.response.headers["retry-after"]

    async def all_at_once():
        async with openai.AsyncOpenAI(
            base_url=f"{url}/tight/v1", api_key="none", max_retries=0
        ) as client:
            return Counter(await asyncio.gather(*(one(client) for _ in range(200))))

    found = asyncio.run(all_at_once())
    assert found.keys() == {TEXT, ("overloaded", "5")}
    assert found[TEXT] >= TIGHT.max_concurrent + TIGHT.max_waiting
    assert transcribe(tight).text == TEXT


def wait_for(reached):
    until = time.monotonic() + 30
    while not reached():
        assert time.monotonic() < until
        time.sleep(0.05)


def test_uploads_on_their_way_are_bounded_together(url, tight):
    def requests():
        return httpx2.get(f"{url}/tight/health").json()["requests"]

    host, port = httpx2.URL(url).host, httpx2.URL(url).port
    with socket.create_connection((host, port)) as slow:
        slow.sendall(
            b"POST /tight/v1/audio/transcriptions HTTP/1.1\r\nHost: here\r\nContent-Length: 1048576"
            b"\r\nContent-Type: multipart/form-data; boundary=x\r\n\r\n--x"
        )
        wait_for(lambda: requests() == 1)
        assert refused(transcribe, tight) == (429, "overloaded", None)
    wait_for(lambda: requests() == 0)
    assert transcribe(tight).text == TEXT


def wait_until_nothing_hangs():
    """Until the replicas have stopped what nobody waits for."""
    replicas = serve.get_app_handle("replicas")
    wait_for(lambda: replicas.count_hanging.remote().result() == 0)


def test_a_request_that_takes_too_long_is_told_so_and_makes_room(url, tight):
    assert refused(transcribe, tight, HANGS) == (504, "timeout", None)
    assert httpx2.get(f"{url}/tight/health").json()["requests"] == 0
    wait_until_nothing_hangs()


def test_clients_that_leave_make_room(url, client):
    for _ in range(3):
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=1).audio.transcriptions.create(file=HANGS, model="das")
    wait_until_nothing_hangs()
    assert httpx2.get(f"{url}/health").json()["requests"] == 0


def test_a_replica_that_dies_is_told_and_the_next_one_answers(client):
    assert refused(transcribe, client, KILLS) == (503, "replica_died", None)
    assert transcribe(client).text == TEXT


def test_without_replicas_the_server_is_not_healthy(url):
    serve.delete("replicas")
    assert httpx2.get(f"{url}/health").status_code == 503
