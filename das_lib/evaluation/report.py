"""The report of a run: WER by system and test set, stages, what was rejected and chosen."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from das_lib.dataset import Summary
from das_lib.evaluation.bootstrap import Change, paired_change
from das_lib.evaluation.wer import Wer, corpus_wer, normaliser_name, utterance_errors
from das_lib.tables import markdown_table, plain_table
from das_lib.train.systems import BASE, MULTI, split_system, system_name
from schemas.transcripts import WER

Results = Mapping[tuple[str, str], Wer]
Changes = Mapping[tuple[str, str], Change]
"""Against the base, by (system, test set)."""


def measure(transcripts: pa.Table) -> Wer | None:
    """WER of one system on one test set, from rows of TRANSCRIPTS that have a reference."""
    rows = transcripts.select(["reference", "text"]).to_pylist()
    return corpus_wer((r["reference"], r["text"]) for r in rows if r["reference"] is not None)


def measure_change(base: pa.Table, system: pa.Table) -> Change | None:
    """Change of a system's WER on one test set, from both systems' rows of TRANSCRIPTS."""
    errors = []
    for table in (base, system):
        rows = [r for r in table.select(["id", "reference", "text"]).to_pylist() if r["reference"]]
        counts = utterance_errors((r["reference"], r["text"]) for r in rows)
        errors.append({r["id"]: n for r, n in zip(rows, counts, strict=True) if n is not None})
    before, after = errors
    common = sorted(before.keys() & after.keys())
    return paired_change([before[i] for i in common], [after[i] for i in common])


def wer_table(results: Results, changes: Changes | None = None) -> pa.Table:
    """Rows of WER."""
    changes = changes or {}
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
            "change": getattr(changes.get((system, test_set)), "relative", None),
            "change_low": getattr(changes.get((system, test_set)), "low", None),
            "change_high": getattr(changes.get((system, test_set)), "high", None),
        }
        for (system, test_set), wer in results.items()
    ]
    return pa.Table.from_pylist(rows, schema=WER)


def report_json(
    results: Results, stages: Sequence[Summary], changes: Changes | None = None
) -> dict[str, Any]:
    """The machine's form: ``results`` and ``stages``, with the normaliser's name."""
    return {
        "results": wer_table(results, changes).drop_columns(["id"]).to_pylist(),
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


def text_table(results: Results) -> str:
    """WER in percent: a row a system, a column a test set, as in the paper's table IV."""
    rows = _grid(results, lambda wer, _: f"{100 * wer.wer:.2f}")
    return plain_table(rows, range(1, len(rows[0])))


def _grid(results: Results, cell: Callable[[Wer, tuple[str, str]], str]) -> list[list[str]]:
    systems = list(dict.fromkeys(system for system, _ in results))
    sets = list(dict.fromkeys(test_set for _, test_set in results))
    utterances = {test_set: str(wer.utterances) for (_, test_set), wer in results.items()}
    rows = [["system", *sets], ["(utterances)", *(utterances[name] for name in sets)]]
    for system in systems:
        keys = [(system, name) for name in sets]
        rows.append([system, *(cell(results[k], k) if k in results else "-" for k in keys)])
    return rows


def _numbers(rows: list[list[str]]) -> list[str]:
    """Markdown of a table whose first column alone is no number."""
    return markdown_table(rows, range(1, len(rows[0])))


def _with_change(changes: Changes) -> Callable[[Wer, tuple[str, str]], str]:
    def cell(wer: Wer, key: tuple[str, str]) -> str:
        change = changes.get(key)
        if change is None:
            return f"{100 * wer.wer:.2f}"
        interval = f"{100 * change.low:+.1f} to {100 * change.high:+.1f}"
        return f"{100 * wer.wer:.2f} ({100 * change.relative:+.1f} %; {interval})"

    return cell


def by_method(results: Results) -> list[list[str]]:
    """The paper's table II: each method's own model on its own domain's test sets.

    A test set is of a domain if its name ends in it: ``synthetic_music``.
    """
    pairs = dict.fromkeys(split_system(s) for s, _ in results if split_system(s)[1])
    domains = [learnt for _, learnt in pairs if learnt != MULTI]
    owners = {
        name: domain for _, name in results for domain in domains if name.endswith(f"_{domain}")
    }
    methods = list(dict.fromkeys(method for method, _ in pairs))
    if len(methods) < 2 or not owners:
        return []
    rows = [["method", *owners]]
    for method in [BASE, *methods]:
        systems = [BASE if method == BASE else system_name(method, d) for d in owners.values()]
        found = [results.get(key) for key in zip(systems, owners, strict=True)]
        rows.append([method, *("-" if wer is None else f"{100 * wer.wer:.2f}" for wer in found)])
    return rows


def markdown_report(
    name: str,
    results: Results,
    stages: Sequence[Summary],
    choices: Mapping[str, Counter[str]],
    changes: Changes | None = None,
) -> str:
    """The report for people; ``choices`` counts, by test set, the branch that chose each token."""
    methods = by_method(results)
    lines = [
        f"# {name}: word error rates",
        "",
        f"WER in percent, corpus level (edits / words), {normaliser_name()} on both sides. "
        "Systems: the stock base, each adapter alone (`lora:`), and all adapters in one pass "
        "(`das`). Sets named `synthetic_` are synthetic speech of texts held out from training. In "
        "brackets: change relative to the base, with its 95 % interval (paired bootstrap over "
        "utterances).",
        "",
        *_numbers(_grid(results, _with_change(changes or {}))),
        "",
        *(["## By method, each on its own domain", "", *_numbers(methods), ""] if methods else []),
        "## Who decided",
        "",
        "Tokens of `das` by the branch that chose them.",
        "",
    ]
    branches = _branches(choices)
    shares = [
        [name, *(f"{100 * counts[b] / max(counts.total(), 1):.1f} %" for b in branches)]
        for name, counts in choices.items()
    ]
    lines += _numbers([["test set", *branches], *shares])
    table = [["stage", "in", "out", "rejected", "seconds", "reasons"]]
    for stage in stages:
        reasons = ", ".join(f"{count} {reason}" for reason, count in stage.reasons.items())
        counts = [str(n) for n in (stage.rows_in, stage.rows_out, stage.rejected)]
        table.append([stage.name, *counts, f"{stage.seconds:.1f}", reasons])
    lines += ["", "## Stages", "", *markdown_table(table, range(1, 5))]
    return "\n".join(lines) + "\n"


def _branches(choices: Mapping[str, Counter[str]]) -> list[str]:
    names = {branch for counts in choices.values() for branch in counts}
    return ["base", *sorted(names - {"base"})]
