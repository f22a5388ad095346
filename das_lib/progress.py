"""One progress line per stage: done/total, rate and time left; then one summary line."""

import sys
import threading
import time
from types import TracebackType
from typing import TextIO

LINE_EVERY_S = 10.0  # where lines cannot be rewritten (logs, pipes)
REWRITE_EVERY_S = 0.2


class Progress:
    """Reports the work of one stage on standard error.

    On a terminal the line is rewritten in place; elsewhere a new one comes every 10 s.
    """

    def __init__(self, stage: str, total: int, unit: str, stream: TextIO | None = None) -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.stream = stream or sys.stderr
        self.done = 0
        self.note = ""
        self.started = time.monotonic()
        self._last = 0.0
        self._lock = threading.Lock()
        self._ended = threading.Event()

    def __enter__(self) -> "Progress":
        self.show(force=True)
        # A model may load for minutes before the first row: the line must move meanwhile.
        threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(
        self,
        _type: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        with self._lock:
            self._ended.set()
            if self.stream.isatty():
                self.stream.write("\r\x1b[K")
                self.stream.flush()

    def _tick(self) -> None:
        while not self._ended.wait(1.0):
            self.show()

    @property
    def seconds(self) -> float:
        """Time since the stage began."""
        return time.monotonic() - self.started

    def advance(self, count: int, note: str = "") -> None:
        """Count work done; ``note`` is shown at the end of the line."""
        self.done += count
        self.note = note or self.note
        self.show()

    def show(self, *, force: bool = False) -> None:
        """Print the line if it is time to."""
        with self._lock:
            if not self._ended.is_set():
                self._show(force)

    def _show(self, force: bool) -> None:
        now = time.monotonic()
        terminal = self.stream.isatty()
        if not force and now - self._last < (REWRITE_EVERY_S if terminal else LINE_EVERY_S):
            return
        self._last = now
        line = f"{self.stage:<12} {self.done}/{self.total} {self.unit}"
        if self.done:
            rate = self.done / max(self.seconds, 1e-6)
            left = max(self.total - self.done, 0) / rate
            line += f"  {rate:.1f}/s  ETA {format_seconds(left)}"
        else:
            line += f"  starting ({format_seconds(self.seconds)})"
        line += f"  {self.note}" if self.note else ""
        self.stream.write(f"\r\x1b[K{line}" if terminal else f"{line}\n")
        self.stream.flush()


def format_seconds(seconds: float) -> str:
    """``75`` -> ``1:15``."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
