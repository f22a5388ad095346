"""A proxy in front of an S3 server, which makes it stumble."""

import http.client
import random
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

METHODS = ("GET", "HEAD", "PUT", "POST", "DELETE")
LOST = "lost"
"""The request is done, its answer is lost."""
STALL = "stall"
"""The request is never answered."""
FAULTS = (
    "reset",
    LOST,
    "cut",
    STALL,
    (500, "InternalError"),
    (503, "SlowDown"),
)


class StumblingS3(ThreadingHTTPServer):
    """What stands in ``faults`` happens to the next requests, None being none.

    With ``rate``, so many of all requests fail in ways of `FAULTS`, drawn by ``seed``: the n-th of
    a method always in the same way, whatever comes between.
    """

    daemon_threads = True

    def __init__(self, target, *, rate=0.0, seed=0, stall_s=0.0):
        super().__init__(("127.0.0.1", 0), Handler)
        self.target, self.rate, self.stall_s = target, rate, stall_s
        self.draws = {name: random.Random(f"{name}{seed}") for name in METHODS}
        self.lock = threading.Lock()
        self.faults, self.requests, self.stumbled = [], Counter(), Counter()
        self.url = f"http://127.0.0.1:{self.server_port}"

    def __enter__(self):
        threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()

    def fault(self, command):
        """What happens to a request that came."""
        with self.lock:
            self.requests[command] += 1
            if self.faults:
                return self.faults.pop(0)
            draw = self.draws[command]
            if draw.random() >= self.rate:
                return None
            fault = draw.choice(FAULTS)
            self.stumbled[command, fault] += 1
            return fault

    def handle_error(self, *_):
        """Clients that hang up are none of the test's business."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault(self.command)
        if fault == "reset":
            return self.stop()
        if fault == STALL:
            time.sleep(self.server.stall_s)
            return self.stop()
        if isinstance(fault, tuple):
            status, code = fault
            xml = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
            return self.answer(status, {}, xml.encode())
        headers = {name: value for name, value in self.headers.items() if name != "Expect"}
        connection = http.client.HTTPConnection(*self.server.target)
        connection.request(self.command, self.path, body or None, headers)
        answer = connection.getresponse()
        content = answer.read()
        connection.close()
        if fault == LOST:
            return self.stop()
        self.answer(answer.status, dict(answer.getheaders()), content, fault == "cut")

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def answer(self, status, headers, content, is_cut=False):
        self.send_response(status)
        for name, value in headers.items():
            if name.lower() not in ("content-length", "connection", "date", "server"):
                self.send_header(name, value)
        length = headers.get("Content-Length") if self.command == "HEAD" else None
        self.send_header("Content-Length", length or str(len(content)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if is_cut else content)
        if is_cut:
            self.stop()

    def stop(self):
        self.close_connection = True
        self.wfile.flush()
        self.connection.close()

    def log_message(self, *_):
        pass
