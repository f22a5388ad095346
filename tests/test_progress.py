import io

from das_lib.progress import Progress, format_seconds


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_log_gets_a_line_with_done_total_rate_and_eta():
    stream = io.StringIO()
    with Progress("speech", 10, "utterances", stream) as progress:
        progress.advance(5, "3 rejected")
        progress.show(force=True)
    last = stream.getvalue().splitlines()[-1]
    assert last.startswith("speech       5/10 utterances")
    assert "/s  ETA 0:00" in last
    assert last.endswith("3 rejected")
    assert "\r" not in stream.getvalue()


def test_a_log_is_not_flooded():
    stream = io.StringIO()
    with Progress("speech", 1000, "utterances", stream) as progress:
        for _ in range(1000):
            progress.advance(1)
    assert len(stream.getvalue().splitlines()) == 1


def test_a_terminal_line_is_rewritten_and_cleared():
    stream = Terminal()
    with Progress("speech", 10, "utterances", stream) as progress:
        progress.advance(5)
    assert "\n" not in stream.getvalue()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_times_read_as_clocks():
    assert [format_seconds(s) for s in (0, 75, 3605)] == ["0:00", "1:15", "1:00:05"]
