import gzip
import json
import os
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from das_lib.bulk.entries import to_recording
from das_lib.bulk.recording import Recording
from das_lib.bulk.sources import list_recordings
from das_lib.errors import DasError, Reject
from das_lib.speech.audio import AudioError
from schemas.bulk import RECORDINGS
from schemas.validate import validate


def listed(source):
    items = list(list_recordings(str(source)))
    good = [item for item in items if not isinstance(item, Reject)]
    validate(pa.Table.from_pylist([r.to_row() for r in good], schema=RECORDINGS), RECORDINGS)
    ids = [item.id for item in items]
    assert len(ids) == len(set(ids))
    return good, [item for item in items if isinstance(item, Reject)]


def write(path, content):
    content = content.encode() if isinstance(content, str) else content
    path.write_bytes(gzip.compress(content) if path.name.endswith(".gz") else content)
    return path


def jsonl(*entries):
    return "".join(json.dumps(entry) + "\n" for entry in entries)


ROWS = [
    {"id": "one", "audio": "a.wav", "start_s": 1.5, "duration_s": 2.0, "channel": 1, "text": "x"},
    {"id": "two", "audio": "/b/c.wav", "start_s": 0.0, "duration_s": 3.0, "channel": 0, "text": ""},
]


def csv_text(delimiter):
    lines = [ROWS[0].keys(), *(row.values() for row in ROWS)]
    return "\n".join(delimiter.join(map(str, line)) for line in lines) + "\n"


FORMS = {
    "m.jsonl": jsonl(*ROWS),
    "m.json": json.dumps(ROWS, indent=1),
    "lines.json": "\n" + jsonl(*ROWS),
    "m.csv": "\ufeff" + csv_text(","),
    "M.TSV": csv_text("\t"),
}


@pytest.mark.parametrize("packed", ["", ".gz"])
@pytest.mark.parametrize("name", FORMS)
def test_every_form_of_text_says_the_same(name, packed, tmp_path):
    good, bad = listed(write(tmp_path / (name + packed), FORMS[name]))
    assert good == [
        Recording(
            id="one",
            url=f"{tmp_path}/a.wav",
            start_s=1.5,
            duration_s=2.0,
            channel=1,
            extra='{"text": "x"}',
        ),
        Recording(id="two", url="/b/c.wav", duration_s=3.0, channel=0, extra='{"text": ""}'),
    ]
    assert bad == []


def test_parquet_without_bytes_is_a_manifest(tmp_path):
    columns = {name: [row[name] for row in ROWS] for name in ROWS[0]}
    table = pa.table({**columns, "words": [["x"], []], "channel": [1.0, None]})
    pq.write_table(table, tmp_path / "m.parquet", row_group_size=1)
    good, bad = listed(tmp_path / "m.parquet")
    assert [(r.id, r.start_s, r.duration_s, r.channel, r.extra) for r in good] == [
        ("one", 1.5, 2.0, 1, '{"text": "x"}'),
        ("two", 0.0, 3.0, None, '{"text": ""}'),
    ]
    assert bad == []


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (
            {"audio_filepath": "a", "offset": 2, "duration": 3},
            ("a#2.000-3.000", "/m/a", 2, 3, None),
        ),
        ({"path": "a.wav", "duration": "1.25"}, ("a.wav#0.000-1.250", "/m/a.wav", 0, 1.25, None)),
        ({"file": "s3://b/a", "start": 1}, ("s3://b/a#1.000-", "s3://b/a", 1, None, None)),
        ({"url": "file:///x/a", "utt_id": 7}, ("7", "/x/a", 0, None, None)),
        ({"audio": "", "path": "b", "id": ""}, ("b", "/m/b", 0, None, None)),
        ({"audio": "../a", "channel": "1"}, ("../a@1", "/m/../a", 0, None, 1)),
        ({"path": "a", "recording": "b", "sources": "c"}, ("a", "/m/a", 0, None, None)),
        ({"audio": "a", "start": "", "channel": None}, ("a", "/m/a", 0, None, None)),
    ],
)
def test_columns_go_by_their_usual_names(entry, expected):
    found = to_recording(entry, "/m")
    assert (found.id, found.url, found.start_s, found.duration_s, found.channel) == expected


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ([], "no-json"),
        ("a.wav", "no-json"),
        ({"text": "x"}, "no-audio"),
        ({"audio": {"path": "a"}}, "no-audio"),
        ({"audio": None}, "no-audio"),
        ({"audio": "a", "start": -1}, "bad-time"),
        ({"audio": "a", "start": "soon"}, "bad-time"),
        ({"audio": "a", "start": [1]}, "bad-time"),
        ({"audio": "a", "start": True}, "bad-time"),
        ({"audio": "a", "duration": 0}, "bad-time"),
        ({"audio": "a", "duration": float("nan")}, "bad-time"),
        ({"audio": "a", "duration": "inf"}, "bad-time"),
        ({"audio": "a", "duration": 10**400}, "bad-time"),
        ({"audio": "a", "channel": -1}, "bad-channel"),
        ({"audio": "a", "channel": 1.5}, "bad-channel"),
        ({"audio": "a", "channel": float("nan")}, "bad-channel"),
        ({"audio": "a", "channel": "left"}, "bad-channel"),
        ({"audio": "a", "channel": "²"}, "bad-channel"),
        ({"audio": "a", "channel": True}, "bad-channel"),
        ({"audio": "a", "channel": 2**31}, "bad-channel"),
    ],
)
def test_what_is_no_entry_has_a_reason(entry, reason):
    with pytest.raises(AudioError) as error:
        to_recording(entry, "/m")
    assert error.value.reason == reason


def test_bad_lines_are_rejected_by_their_numbers_and_the_others_stay(tmp_path):
    lines = [
        b'{"audio": "a.wav"}',
        b"",
        b"{",
        b"null",
        b"[" * 100_000,
        b'{"audio": "\xff.wav", "id": "broken"}',
        b'{"audio": "b.wav", "n": ' + b"9" * 5000 + b"}",
        b'{"audio": "c.wav"}',
    ]
    good, bad = listed(write(tmp_path / "m.jsonl", b"\r\n".join(lines)))
    assert [r.id for r in good] == ["a.wav", "broken", "c.wav"]
    assert {(r.id, r.reason) for r in bad} == {
        (f"m.jsonl:{number}", "no-json") for number in (3, 4, 5, 7)
    }


def test_the_first_of_an_id_stays_and_the_parts_of_a_file_have_their_own(tmp_path):
    rows = [
        {"id": "x", "audio": "a.wav"},
        {"id": "x", "audio": "b.wav"},
        {"id": "x", "audio": "c.wav"},
        {"audio": "d.wav", "start": 0, "duration": 1},
        {"audio": "d.wav", "start": 1, "duration": 1},
        {"audio": "d.wav", "channel": 0},
        {"audio": "d.wav", "channel": 1},
        {"id": "x#2", "audio": "e.wav"},
    ]
    good, bad = listed(write(tmp_path / "m.jsonl", jsonl(*rows)))
    assert [r.id for r in good] == [
        *("x", "d.wav#0.000-1.000", "d.wav#1.000-1.000", "d.wav@0", "d.wav@1")
    ]
    assert good[0].url.endswith("/a.wav")
    assert [(r.id, r.reason) for r in bad] == [
        ("x#2", "duplicate-id"),
        ("x#3", "duplicate-id"),
        ("x#2#2", "duplicate-id"),
    ]


def test_a_million_times_one_id_is_not_slow_to_make_unique(tmp_path):
    good, bad = listed(write(tmp_path / "m.jsonl", jsonl({"audio": "a"}) * 20_000))
    assert (len(good), len(bad), bad[-1].id) == (1, 19_999, "a#20000")


def test_names_that_cannot_be_stored_or_opened_are_rejected(tmp_path):
    rows = [{"audio": "\ud800.wav"}, {"audio": "a\0.wav"}, {"audio": "ok", "text": "\ud800"}]
    good, bad = listed(write(tmp_path / "m.jsonl", jsonl(*rows)))
    assert [(r.id, r.extra) for r in good] == [("ok", '{"text": "?"}')]
    assert [r.reason for r in bad] == ["bad-name", "bad-name"]
    assert bad[0].id == "\\ud800.wav"


def test_other_scalar_columns_are_kept_as_json(tmp_path):
    row = {"audio": "a", "s": "ü", "i": 1, "f": 0.5, "b": True, "n": None, "x": float("nan")}
    good, _ = listed(write(tmp_path / "m.jsonl", jsonl({**row, "l": [1], "o": {}})))
    extra = json.loads(good[0].extra)
    assert extra == {"s": "ü", "i": 1, "f": 0.5, "b": True, "n": None, "x": None}
    assert list(extra.values())[3] is True


CUT = {
    "id": "cut-1",
    "start": 1.5,
    "duration": 2.5,
    "channel": 0,
    "supervisions": [{"text": "x"}],
    "recording": {
        "id": "rec",
        "sources": [{"type": "file", "channels": [0, 1], "source": "a.wav"}],
        "sampling_rate": 16000,
        "num_samples": 160000,
        "duration": 10.0,
    },
    "type": "MonoCut",
}


def with_sources(*sources, **cut):
    return {**CUT, **cut, "recording": {**CUT["recording"], "sources": list(sources)}}


LEFT = {"type": "file", "channels": [0], "source": "left.wav"}
RIGHT = {"type": "file", "channels": [1], "source": "right.wav"}


@pytest.mark.parametrize(
    ("entry", "expected"),
    [
        (CUT, ("cut-1", "/m/a.wav", 1.5, 2.5, 0)),
        ({**CUT, "channel": 1}, ("cut-1", "/m/a.wav", 1.5, 2.5, 1)),
        ({**CUT, "channel": [0, 1], "type": "MultiCut"}, ("cut-1", "/m/a.wav", 1.5, 2.5, None)),
        (with_sources(LEFT, RIGHT, channel=1), ("cut-1", "/m/right.wav", 1.5, 2.5, 0)),
        (CUT["recording"], ("rec", "/m/a.wav", 0, None, None)),
    ],
)
def test_cuts_and_recordings_of_lhotse(entry, expected):
    found = to_recording(entry, "/m")
    assert (found.id, found.url, found.start_s, found.duration_s, found.channel) == expected


@pytest.mark.parametrize(
    ("entry", "reason"),
    [
        ({"id": "mix", "tracks": [], "type": "MixedCut"}, "no-audio"),
        ({**CUT, "recording": None}, "no-audio"),
        (with_sources({"type": "command", "channels": [0], "source": "rm -rf /"}), "no-audio"),
        (with_sources({"type": "memory", "channels": [0], "source": 5}), "no-audio"),
        (with_sources(LEFT, RIGHT, channel=[0, 1], type="MultiCut"), "no-audio"),
        (with_sources({**LEFT, "source": None}), "no-audio"),
        (with_sources(), "no-audio"),
        ({**CUT, "recording": {"sources": 3}}, "no-audio"),
        ({**CUT, "start": -1}, "bad-time"),
        ({**CUT, "channel": "left"}, "bad-channel"),
    ],
)
def test_cuts_that_are_no_single_file_have_a_reason(entry, reason):
    with pytest.raises(AudioError) as error:
        to_recording(entry, "/m")
    assert error.value.reason == reason


def test_csv_cells_may_hold_commas_and_lines_and_quotes(tmp_path):
    text = 'path,text\r\n"a,b.wav","one\r\ntwo ""three"""\r\n\r\nc.wav\r\nd.wav,x,y\r\n'
    good, bad = listed(write(tmp_path / "m.csv", text))
    assert [(r.id, r.extra) for r in good] == [
        ("a,b.wav", r'{"text": "one\r\ntwo \"three\""}'),
        ("c.wav", None),
    ]
    assert [(r.id, r.reason) for r in bad] == [("m.csv:6", "bad-row")]


def test_a_quote_in_tsv_swallows_no_line(tmp_path):
    good, bad = listed(write(tmp_path / "m.tsv", 'path\ttext\na.wav\t"Hello\nb.wav\tx\n'))
    assert [(r.id, r.extra) for r in good] == [
        ("a.wav", r'{"text": "\"Hello"}'),
        ("b.wav", '{"text": "x"}'),
    ]
    assert bad == []


def test_a_quote_that_is_never_closed_costs_some_lines_of_csv_not_all(tmp_path):
    rows = "".join(f"{number}.wav,x\n" for number in range(30_000))
    good, bad = listed(write(tmp_path / "m.csv", f'path,text\nbad.wav,"x\n{rows}'))
    assert good[-1].id == "29999.wav"
    assert [r.reason for r in bad] == ["bad-row"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("m.csv", "", "has the columns none; name the one with the paths 'audio'"),
        ("m.csv", "clip,text\na.wav,x\n", "has the columns 'clip', 'text'; name"),
        ("m.jsonl", "", "no audio below"),
        ("m.json", "[1, 2", "is no JSON .*; mend it, or write JSONL"),
        ("m.parquet", "PAR1", "manifest .*m.parquet breaks off after line 0"),
    ],
)
def test_a_manifest_that_lists_nothing_says_why(name, content, message, tmp_path):
    with pytest.raises(DasError, match=message):
        listed(write(tmp_path / name, content))


def test_parquet_without_a_column_of_paths_or_bytes_names_its_columns(tmp_path):
    pq.write_table(pa.table({"clip": ["a"]}), tmp_path / "m.parquet")
    with pytest.raises(DasError, match="has the columns 'clip'; name"):
        listed(tmp_path / "m.parquet")


def test_a_gzip_that_is_cut_short_is_not_taken_for_the_whole(tmp_path):
    rows = [{"audio": f"{os.urandom(20).hex()}.wav"} for _ in range(5000)]
    whole = gzip.compress(jsonl(*rows).encode())
    (tmp_path / "m.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    found = list_recordings(str(tmp_path / "m.jsonl.gz"))
    assert next(found).id == rows[0]["audio"]
    with pytest.raises(DasError, match=r"breaks off after line \d{3,} .*make it again"):
        list(found)


def test_lines_are_read_as_a_stream(tmp_path):
    path = write(tmp_path / "m.jsonl", jsonl({"audio": "a", "text": "x" * 5000}) * 4000)
    listing = list_recordings(str(path))
    next(listing)
    tracemalloc.start()
    try:
        assert sum(1 for _ in listing) == 3999
        assert tracemalloc.get_traced_memory()[1] < path.stat().st_size / 10
    finally:
        tracemalloc.stop()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=5,
)
keys = st.sampled_from(
    [*("audio", "path", "id", "start", "duration", "channel", "recording", "sources", "type", "x")]
)


@given(st.dictionaries(keys, json_values) | json_values)
def test_any_json_is_a_valid_recording_or_has_a_reason(entry):
    try:
        found = to_recording(entry, "/m")
    except AudioError:
        return
    row = {**found.to_row(), "id": "x", "url": "x"}
    validate(pa.Table.from_pylist([row], schema=RECORDINGS), RECORDINGS)
