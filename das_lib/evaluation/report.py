"""The report of a run: WER by system and test set, stages, what was rejected and chosen."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from das_lib.dataset import Summary
from das_lib.evaluation.wer import Wer, corpus_wer, normaliser_name
from schemas.transcripts import WER

Results = Mapping[tuple[str, str], Wer]


def measure(transcripts: pa.Table) -> Wer | None:
    """WER of one system on one test set, from rows of TRANSCRIPTS that have a reference."""
    rows = transcripts.select(["reference", "text"]).to_pylist()
    return corpus_wer((r["reference"], r["text"]) for r in rows if r["reference"] is not None)


def wer_table(results: Results) -> pa.Table:
    """Rows of WER."""
    rows = [
        {
            "id": f"{system}/{test_set}",
            "system": system,
            "test_set": test_set,
            "wer": wer.wer,
            "edits": wer.edits,
            "words": wer.words,
            "utterances": wer.utterances,
            "substitutions": wer.substitutions,
            "deletions": wer.deletions,
            "insertions": wer.insertions,
        }
        for (system, test_set), wer in results.items()
    ]
    return pa.Table.from_pylist(rows, schema=WER)


def report_json(results: Results, stages: Sequence[Summary]) -> dict[str, Any]:
    """The machine's form: ``results`` and ``stages``, with the normaliser's name."""
    return {
        "results": wer_table(results).drop_columns(["id"]).to_pylist(),
        "stages": [
            {
                "name": stage.name,
                "in": stage.rows_in,
                "out": stage.rows_out,
                "rejected": stage.rejected,
                "seconds": stage.seconds,
                "reasons": stage.reasons,
            }
            for stage in stages
        ],
        "normaliser": normaliser_name(),
    }


def text_table(results: Results, markdown: bool = False) -> str:
    """WER in percent: a row a test set, a column a system."""
    systems = list(dict.fromkeys(system for system, _ in results))
    sets = list(dict.fromkeys(test_set for _, test_set in results))
    rows = [["test set", "utterances", *systems]]
    for name in sets:
        cells = [results.get((system, name)) for system in systems]
        utterances = next((str(wer.utterances) for wer in cells if wer), "0")
        rows.append(
            [name, utterances, *("-" if w is None else f"{100 * w.wer:.2f}" for w in cells)]
        )
    if markdown:
        lines = ["| " + " | ".join(row) + " |" for row in rows]
        lines.insert(1, "|---" + "|---:" * (len(rows[0]) - 1) + "|")
        return "\n".join(lines)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown_report(
    name: str, results: Results, stages: Sequence[Summary], choices: Mapping[str, Counter[str]]
) -> str:
    """The report for people; ``choices`` counts, by test set, the branch that chose each token."""
    lines = [
        f"# {name}: word error rates",
        "",
        f"WER in percent, corpus level (edits / words), {normaliser_name()} on both sides. "
        "Systems: the stock base, each adapter alone (`lora:`), and all adapters in one pass "
        "(`das`). Sets named `synthetic_` are synthetic speech of texts held out from training.",
        "",
        text_table(results, markdown=True),
        "",
        "## Who decided",
        "",
        "Tokens of `das` by the branch that chose them.",
        "",
        "| test set | " + " | ".join(_branches(choices)) + " |",
        "|---" + "|---:" * len(_branches(choices)) + "|",
    ]
    for test_set, counts in choices.items():
        total = max(sum(counts.values()), 1)
        shares = [f"{100 * counts[b] / total:.1f} %" for b in _branches(choices)]
        lines.append(f"| {test_set} | " + " | ".join(shares) + " |")
    lines += [
        "",
        "## Stages",
        "",
        "| stage | in | out | rejected | seconds | reasons |",
        "|---|---:|---:|---:|---:|---|",
    ]
    for stage in stages:
        reasons = ", ".join(f"{count} {reason}" for reason, count in stage.reasons.items())
        lines.append(
            f"| {stage.name} | {stage.rows_in} | {stage.rows_out} | {stage.rejected} | "
            f"{stage.seconds:.1f} | {reasons} |"
        )
    return "\n".join(lines) + "\n"


def _branches(choices: Mapping[str, Counter[str]]) -> list[str]:
    names = {branch for counts in choices.values() for branch in counts}
    return ["base", *sorted(names - {"base"})]
