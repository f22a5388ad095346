"""An endpoint that speaks OpenAI's protocol, with all that endpoints do."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from das_lib.config.load import parse_config
from das_lib.config.tree import Llm
from das_lib.errors import DasError
from das_lib.text.engine import OpenAiLlm, sampling_params

KEY = "sk-never-to-be-seen"


class Endpoint(BaseHTTPRequestHandler):
    """Answers by what the chat asks for."""

    asked: dict[str, int]
    keys_seen: list[str]
    bodies: list[dict]
    at_once: int
    most_at_once: int
    lock = threading.Lock()

    def do_POST(self):
        cls = type(self)
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        content = body["messages"][-1]["content"]
        with cls.lock:
            cls.at_once += 1
            cls.most_at_once = max(cls.most_at_once, cls.at_once)
            number = cls.asked[content] = cls.asked.get(content, 0) + 1
            cls.bodies.append(body)
            cls.keys_seen.append(self.headers["Authorization"])
        time.sleep(0.05)
        if content == "limited" and number <= 2:
            return self.answer(429, {"error": {"message": "slow down"}}, {"Retry-After": "0.1"})
        if content == "down":
            return self.answer(500, {"error": {"message": f"no {self.headers['Authorization']}"}})
        if content == "stalls" and number == 1:
            time.sleep(2)
        if content == "odd":
            return self.answer(200, {"hello": 1})
        reply = None if content == "empty" else f"reply to {content}"
        choice = {"index": 0, "finish_reason": "stop"}
        choice["message"] = {"role": "assistant", "content": reply}
        return self.answer(
            200,
            {
                "id": "1",
                "object": "chat.completion",
                "created": 0,
                "model": body["model"],
                "choices": [choice],
                "usage": {"prompt_tokens": 1, "completion_tokens": 3, "total_tokens": 4},
            },
        )

    def answer(self, status, body, headers=None):
        with self.lock:  # before the client, who may ask the next, has it
            type(self).at_once -= 1
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@pytest.fixture
def endpoint(monkeypatch):
    Endpoint.asked, Endpoint.keys_seen, Endpoint.bodies = {}, [], []
    Endpoint.at_once = Endpoint.most_at_once = 0
    monkeypatch.setenv("MY_KEY", KEY)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Endpoint)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1"
    server.shutdown()


def engine(url: str, **more) -> OpenAiLlm:
    given = {"model": "m", "base_url": url, "api_key_env": "MY_KEY", "timeout_s": 1, **more}
    return OpenAiLlm(Llm(engine="openai", **given))


def chats(*contents: str):
    params = sampling_params(Llm(), {"id": "0123456789abcdef"}, "pattern")
    return [([{"role": "user", "content": content}], params) for content in contents]


def test_limits_and_stalls_pass_and_what_fails_for_good_fails_alone(endpoint, caplog):
    llm = engine(endpoint, max_retries=2)
    with caplog.at_level("DEBUG"):
        answers = llm.replies(chats("a", "limited", "down", "stalls", "odd", "empty", "b"))
    assert [reply for reply, _, _ in answers] == [
        "reply to a",
        "reply to limited",
        "",
        "reply to stalls",
        "",
        "",
        "reply to b",
    ]
    errors = [error for _, error, _ in answers]
    assert errors[0] == errors[1] == errors[3] == ""
    assert errors[2].startswith("InternalServerError")
    assert KEY not in errors[2], "though the endpoint sends it back"
    assert errors[4] == errors[5] == "the endpoint sent a reply without content"
    assert Endpoint.asked["limited"] == Endpoint.asked["down"] == 3
    assert Endpoint.asked["stalls"] == 2
    assert llm.replies(chats("again")) == [("reply to again", "", 3)]


def test_only_what_the_protocol_knows_is_sent_and_the_key_stays_in_its_header(endpoint, caplog):
    with caplog.at_level("DEBUG"):
        engine(endpoint).replies(chats("a"))
    (body,) = Endpoint.bodies
    assert Endpoint.keys_seen == [f"Bearer {KEY}"]
    assert body == {
        "model": "m",
        "messages": [{"role": "user", "content": "a"}],
        "temperature": 1.0,
        "top_p": 0.95,
        "max_tokens": 512,
        "frequency_penalty": 0.4,
        "seed": 0x0123456,
    }
    assert KEY not in caplog.text


def test_no_more_requests_at_once_than_allowed(endpoint):
    answers = engine(endpoint, requests=3).replies(chats(*map(str, range(12))))
    assert [reply for reply, _, _ in answers] == [f"reply to {n}" for n in range(12)]
    assert 2 <= Endpoint.most_at_once <= 3


def test_a_missing_key_and_a_missing_address_say_what_to_do(monkeypatch):
    monkeypatch.delenv("MY_KEY", raising=False)
    with pytest.raises(DasError, match="set it where Ray is started"):
        engine("http://127.0.0.1:1/v1")
    tree = {"name": "x", "output": "o", "domains": [{"name": "a", "utterances": 2, "texts": "t"}]}
    for llm, given in (
        ({"engine": "openai"}, "no base_url"),
        ({"base_url": "http://h/v1"}, "base_url=http"),
    ):
        with pytest.raises(DasError, match=given):
            parse_config({**tree, "llm": llm})
