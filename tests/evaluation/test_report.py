from collections import Counter

import pyarrow as pa

from das_lib.dataset import Summary, total_by_stage
from das_lib.evaluation.report import (
    markdown_report,
    measure,
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


def test_the_table_has_a_row_a_set_and_a_column_a_system():
    lines = text_table(RESULTS).splitlines()
    assert lines[0].split() == ["test", "set", "utterances", "base", "das"]
    assert lines[1].split() == ["human", "9", "5.00", "4.00"]
    assert lines[2].split() == ["other", "2", "0.00", "-"]


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
