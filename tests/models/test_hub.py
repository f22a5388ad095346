import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from das_lib.errors import ModelError
from das_lib.models.cache import converted
from das_lib.models.hub import VOICES_REPO, voice_paths
from das_lib.models.resolve import find_model, find_voice

COMMIT = "a" * 40


def cache(tmp_path, repo, files):
    """Writes the hub client's own cache layout; returns the snapshot folder."""
    root = tmp_path / "hub" / f"models--{repo.replace('/', '--')}"
    snapshot = root / "snapshots" / COMMIT
    (root / "refs").mkdir(parents=True)
    (root / "refs" / "main").write_text(COMMIT)
    for name, text in files.items():
        (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
        (snapshot / name).write_text(text)
    return snapshot


WHOLE = {"config.json": "{}", "model.safetensors": "w", "tokenizer.json": "{ }"}


def test_a_whole_cached_model_is_used_without_the_network(tmp_path):
    snapshot = cache(tmp_path, "owner/model", WHOLE)
    found = find_model("owner/model")
    assert (found.source, found.path) == ("hub cache", snapshot)


@pytest.mark.parametrize(
    ("files", "why"),
    [
        ({"config.json": "{}", "tokenizer.json": "{}"}, "has no model.safetensors"),
        ({"config.json": "{}", "pytorch_model.bin": "p"}, "has only pickled weights"),
        ({"config.json": "{}", "model.safetensors": "w"}, "has no tokenizer"),
        ({"tokenizer.json": "{}"}, "it is not in the hub's cache"),
    ],
)
def test_a_part_of_a_model_or_pickles_do_not_count_as_cached(tmp_path, files, why):
    cache(tmp_path, "owner/model", files)
    with pytest.raises(ModelError, match=why):
        find_model("owner/model")


def test_a_packaged_model_whose_cache_is_partial_comes_from_its_packages(tmp_path, tiny_packages):
    cache(tmp_path, "tiny/whisper", {"config.json": "{}"})
    found = find_model("tiny/whisper")
    assert found.source == "packages"
    assert found.path == converted("tiny/whisper")


def test_a_voice_follows_the_path_scheme_of_its_repository(tmp_path):
    json_path, onnx_path = voice_paths("en_US-joe-medium")
    assert onnx_path == "en/en_US/joe/medium/en_US-joe-medium.onnx"
    assert json_path == f"{onnx_path}.json"
    assert voice_paths("openai/whisper-base") == []
    snapshot = cache(tmp_path, VOICES_REPO, {onnx_path: "o", json_path: "{}"})
    found = find_voice("en_US-joe-medium")
    assert (found.source, found.path) == ("hub cache", snapshot / onnx_path)


def test_a_cached_voice_without_its_json_does_not_count(tmp_path):
    cache(tmp_path, VOICES_REPO, {voice_paths("de_DE-eva-low")[1]: "o"})
    with pytest.raises(ModelError, match=r"has no de_DE-eva-low\.onnx\.json beside it"):
        find_voice("de_DE-eva-low")


@pytest.fixture
def hub(monkeypatch):
    """A hub over HTTP: gives a function that publishes files, and the list of what was fetched."""
    from huggingface_hub import constants

    repos: dict[str, dict[str, bytes]] = {}
    fetched: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def reply(self, status, body, **headers):
            self.send_response(status)
            for name, value in {**headers, "Content-Length": len(body)}.items():
                self.send_header(name.replace("_", "-"), str(value))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(body)

        def do_GET(self):
            path = self.path.split("?")[0]
            for repo, files in repos.items():
                if path.startswith(f"/api/models/{repo}/tree/"):
                    listing = [
                        {"type": "file", "path": n, "size": len(d), "oid": etag(d)}
                        for n, d in files.items()
                    ]
                    return self.reply(200, json.dumps(listing).encode())
                if path.startswith(f"/api/models/{repo}"):
                    siblings = [{"rfilename": name} for name in files]
                    info = {"id": repo, "sha": COMMIT, "siblings": siblings}
                    return self.reply(200, json.dumps(info).encode())
                if path.startswith(f"/{repo}/resolve/{COMMIT}/"):
                    name = path.split(f"/resolve/{COMMIT}/")[1]
                    if self.command == "GET":
                        fetched.append(name)
                    headers = {"ETag": f'"{etag(files[name])}"', "X_Repo_Commit": COMMIT}
                    return self.reply(200, files[name], **headers)
            self.reply(404, b"", X_Error_Code="RepoNotFound")
            return None

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, format, *args):
            pass

    def etag(data):
        return hashlib.sha1(data).hexdigest()

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(
        constants,
        "HUGGINGFACE_CO_URL_TEMPLATE",
        constants.ENDPOINT + "/{repo_id}/resolve/{revision}/{filename}",
    )

    def publish(repo, files):
        repos[repo] = {name: text.encode() for name, text in files.items()}

    yield publish, fetched
    server.shutdown()
    server.server_close()


def test_the_hub_gives_safetensors_and_texts_and_never_pickles(hub):
    publish, fetched = hub
    publish("owner/model", {**WHOLE, "pytorch_model.bin": "pickle", "README.md": "r", "m.pt": "p"})
    found = find_model("owner/model")
    assert found.source == "hub"
    assert sorted(fetched) == sorted(WHOLE)
    assert {p.name for p in found.path.iterdir()} == set(WHOLE)
    assert find_model("owner/model").source == "hub cache"


def test_a_hub_model_that_has_only_pickles_is_refused(hub):
    publish, fetched = hub
    publish("owner/model", {"config.json": "{}", "pytorch_model.bin": "pickle"})
    with pytest.raises(ModelError, match=r"what the hub gave .* has no model\.safetensors"):
        find_model("owner/model")
    assert fetched == ["config.json"]


def test_a_name_that_the_hub_does_not_know_says_so(hub):
    with pytest.raises(ModelError, match="the hub answers that there is no public model"):
        find_model("owner/misspelt")


def test_a_voice_comes_from_the_hub_with_its_json_and_nothing_else(hub):
    publish, fetched = hub
    paths = voice_paths("en_GB-alan-low")
    others = {"en/en_GB/cori/high/en_GB-cori-high.onnx": "o", "README.md": "r"}
    publish(VOICES_REPO, {paths[0]: "{}", paths[1]: "voice", **others})
    found = find_voice("en_GB-alan-low")
    assert found.source == "hub"
    assert sorted(fetched) == sorted(paths)
    assert found.path.name == "en_GB-alan-low.onnx"
    assert found.path.with_name("en_GB-alan-low.onnx.json").is_file()
