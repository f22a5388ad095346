from collections import Counter

import pyarrow as pa

from das_lib.dataset import Summary, total_by_stage
from das_lib.evaluation.bootstrap import Change
from das_lib.evaluation.report import (
    by_method,
    markdown_report,
    measure,
    measure_change,
    report_json,
    text_table,
    wer_table,
)
from das_lib.evaluation.wer import Wer
from schemas.transcripts import WER
from schemas.validate import validate

RESULTS = {
    ("base", "human"): Wer(substitutions=3, deletions=1, insertions=1, words=100, utterances=9),
    ("das", "human"): Wer(substitutions=2, deletions=1, insertions=1, words=100, utterances=9),
    ("base", "other"): Wer(substitutions=0, deletions=0, insertions=0, words=10, utterances=2),
}
STEPS = [
    Summary(
        stage="speech", name=n, rows_in=5, rows_out=4, rejected=1, reasons={"silent": 1}, seconds=2
    )
    for n in ("music", "sports")
]


def test_the_table_has_a_row_a_system_and_a_column_a_set():
    lines = [line.split() for line in text_table(RESULTS).splitlines()]
    assert lines == [
        ["system", "human", "other"],
        ["(utterances)", "9", "2"],
        ["base", "5.00", "0.00"],
        ["das", "4.00", "-"],
    ]


def transcripts(*rows: tuple[str, str | None, str]) -> pa.Table:
    return pa.Table.from_pylist(
        [{"id": i, "reference": reference, "text": text} for i, reference, text in rows]
    )


def test_a_change_is_measured_on_the_same_recordings():
    base = transcripts(("a", "one cat sat", "one dog sat"), ("b", "two", "to"), ("c", None, "x"))
    system = transcripts(("c", None, "y"), ("b", "two", "too"), ("a", "one cat sat", "one cat sat"))
    change = measure_change(base, system)
    assert change is not None
    assert change.relative == -0.5
    assert measure_change(system, system).relative == 0


def test_methods_are_compared_each_on_its_own_domain():
    def wer(edits: int) -> Wer:
        return Wer(substitutions=edits, deletions=0, insertions=0, words=100, utterances=5)

    sets = ("far_music", "far_sports", "books")
    systems = ("base", "lora:music", "lora:sports", "das", "ft-decoder:music", "lora:multi")
    results = {
        (system, name): wer(10 * i + j)
        for i, system in enumerate(systems)
        for j, name in enumerate(sets)
    }
    assert by_method(results) == [
        ["method", "far_music", "far_sports"],
        ["base", "0.00", "1.00"],
        ["lora", "10.00", "21.00"],
        ["ft-decoder", "40.00", "-"],
    ]
    report = markdown_report("x", results, [], {})
    assert "## By method" in report
    assert "## By method" not in markdown_report("x", RESULTS, [], {})
    assert by_method({k: v for k, v in results.items() if not k[0].startswith("ft")}) == []


def test_the_report_shows_changes_with_their_intervals():
    change = Change(relative=-0.2, low=-0.4, high=0.05)
    report = markdown_report("demo", RESULTS, [], {}, {("das", "human"): change})
    assert "| das | 4.00 (-20.0 %; -40.0 to +5.0) | - |" in report
    (row,) = [r for r in wer_table(RESULTS, {("das", "human"): change}).to_pylist() if r["change"]]
    assert (row["system"], row["change"], row["change_high"]) == ("das", -0.2, 0.05)


def test_the_json_has_the_promised_keys():
    value = report_json(RESULTS, total_by_stage(STEPS))
    keys = {"system", "test_set", "wer", "edits", "words", "utterances"}
    assert keys <= set(value["results"][0])
    assert value["results"][0]["wer"] == 0.05
    (stage,) = value["stages"]
    assert stage == {
        "name": "speech",
        "in": 10,
        "out": 8,
        "rejected": 2,
        "seconds": 4,
        "reasons": {"silent": 2},
    }


def test_the_report_dataset_keeps_its_schema():
    validate(wer_table(RESULTS), WER)


def test_markdown_names_normaliser_rejects_and_who_decided():
    text = markdown_report(
        "demo", RESULTS, total_by_stage(STEPS), {"human": Counter({"base": 3, "music": 1})}
    )
    assert "EnglishTextNormalizer" in text
    assert "2 silent" in text
    assert "| human | 75.0 % | 25.0 % |" in text


def test_only_recordings_with_a_reference_are_measured():
    table = pa.table({"reference": ["yes", None], "text": ["yes", "unknown"]})
    assert measure(table).utterances == 1
    assert measure(table.slice(1)) is None
