"""An adapter goes to a hub over HTTP: a server on this machine speaks the hub's protocol."""

import base64
import json
import re
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from huggingface_hub import constants

from das_lib.errors import DasError
from ray_jobs.cli import main


class Hub(BaseHTTPRequestHandler):
    """Keeps what is committed; knows one token."""

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        state = self.server.state
        if self.headers.get("Authorization") != "Bearer hf_right":
            return self.answer(401, {"error": "who are you"})
        if self.path == "/api/repos/create":
            state["created"] = json.loads(body)
            return self.answer(200, {"url": f"{constants.ENDPOINT}/me/music"})
        if self.path == "/api/models/me/music/preupload/main":
            files = json.loads(body)["files"]
            modes = [{"path": f["path"], "uploadMode": "regular"} for f in files]
            return self.answer(200, {"files": [m | {"shouldIgnore": False} for m in modes]})
        if self.path == "/api/models/me/music/commit/main":
            lines = [json.loads(line) for line in body.splitlines()]
            files = [line["value"] for line in lines if line["key"] == "file"]
            state["files"] = {f["path"]: base64.b64decode(f["content"]) for f in files}
            url = f"{constants.ENDPOINT}/me/music/commit/1"
            return self.answer(200, {"commitUrl": url, "commitOid": "1"})
        if self.path == "/api/validate-yaml":  # of the model card's head
            return self.answer(200, {"errors": [], "warnings": []})
        return self.answer(404, {"error": self.path})

    def do_GET(self) -> None:
        self.answer(200, {"id": "me/music", "sha": "0" * 40})

    def answer(self, code: int, value: dict) -> None:
        data = json.dumps(value).encode()
        self.send_response(code)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """Silence."""


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    server.state = {}
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_TOKEN", "hf_right")
    yield server.state
    server.shutdown()


def test_an_adapter_is_pushed_whole_and_private(hub, make_adapter, capsys):
    adapter = make_adapter(seed=1)
    assert main(["adapters", "push", str(adapter), "me/music"]) == 0
    assert f"{constants.ENDPOINT}/me/music: " in capsys.readouterr().err
    assert hub["created"] == {"name": "music", "organization": "me", "visibility": "private"}
    kept = {p.name: p.read_bytes() for p in adapter.iterdir()}
    assert {name: hub["files"].get(name) for name in kept} == kept


@pytest.mark.parametrize(
    ("repository", "token", "message"),
    [
        ("me/music", "hf_wrong", "does not take me/music.*HF_TOKEN"),
        ("me/mu/sic", "hf_right", "REPOSITORY: .*owner/name"),
    ],
)
def test_a_refusal_says_what_to_do(
    hub, make_adapter, monkeypatch, capsys, repository, token, message
):
    monkeypatch.setenv("HF_TOKEN", token)
    assert main(["adapters", "push", str(make_adapter(seed=1)), repository]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert re.search(message, error), error
    assert "files" not in hub


def test_a_folder_that_is_no_adapter_is_not_pushed(hub, tmp_path):
    from das_lib.adapters.push import push

    with pytest.raises(DasError, match=r"has no adapter_config\.json"):
        push(tmp_path, "me/music")
    assert hub == {}
