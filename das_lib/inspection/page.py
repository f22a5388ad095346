"""The page: one HTML file without anything from elsewhere."""

import base64
import json
from collections.abc import Sequence
from html import escape
from importlib import resources
from string import Template
from typing import Any

from das_lib.inspection.read import Shown
from das_lib.progress import format_seconds

BINS = 30
WIDTH, HEIGHT = 360, 120  # pixels of a histogram
AUDIO = "audio"
LAST = ("engine", "voice", "source", "domain", "id")
"""Columns that come behind the others."""


def page(shown: Shown) -> str:
    """The whole page."""
    summary = shown.summary
    state = "" if shown.finished else " (unfinished)"
    facts = {
        "rows in": f"{summary.rows_in:,}",
        "accepted": f"{summary.rows_out:,}",
        "rejected": f"{summary.rejected:,}",
        "time": format_seconds(summary.seconds) if shown.finished else "-",
    }
    template = Template(
        resources.files("das_lib.inspection").joinpath("page.html").read_text("utf-8")
    )
    return template.substitute(
        title=escape(f"{summary.stage}/{summary.name}{state}"),
        facts="".join(f"<div><dt>{k}</dt><dd>{v}</dd></div>" for k, v in facts.items()),
        histograms="".join(histogram(title, v) for title, v in shown.measures.items()),
        rejects=_rejects(shown),
        shown=len(shown.rows),
        table=_table(shown.rows),
        config=escape(json.dumps(shown.config, indent=1, ensure_ascii=False)),
    )


def histogram(title: str, values: Sequence[float]) -> str:
    """Counts of the values in even bins, as SVG; each bar tells its range and count."""
    low, high = min(values), max(values)
    whole = all(float(value).is_integer() for value in values)
    bins = min(BINS, int(high - low) + 1) if whole else BINS
    width = (high + whole - low) / bins or 1.0
    counts = [0] * bins
    for value in values:
        counts[min(bins - 1, int((value - low) / width))] += 1
    step, most = WIDTH / bins, max(counts)
    bars = "".join(
        f'<rect x="{place * step:.1f}" y="{HEIGHT - HEIGHT * count / most:.1f}" '
        f'width="{step * 0.9:.1f}" height="{HEIGHT * count / most:.1f}">'
        f"<title>{low + place * width:.4g} to {low + (place + 1) * width:.4g}: {count}</title>"
        "</rect>"
        for place, count in enumerate(counts)
    )
    middle = sorted(values)[len(values) // 2]
    return (
        f"<figure><figcaption>{escape(title)}</figcaption>"
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">{bars}</svg>'
        f"<p>{low:.4g} <span>median {middle:.4g}</span> {high:.4g}</p></figure>"
    )


def _rejects(shown: Shown) -> str:
    if not shown.rejects:
        return "<p>None.</p>"
    parts = []
    for reason, rows in shown.rejects.items():
        count = shown.summary.reasons[reason]
        share = count / max(shown.summary.rows_in, 1)
        items = "".join(f"<li><code>{escape(r['detail'] or r['id'])}</code></li>" for r in rows)
        parts.append(
            f"<details><summary><b>{escape(reason)}</b> {count:,} ({share:.1%})"
            f'<meter value="{share:.4f}"></meter></summary><ul>{items}</ul></details>'
        )
    return "".join(parts)


def _table(rows: Sequence[dict[str, Any]]) -> str:
    if not rows:
        return "<p>No rows.</p>"
    names = [name for name in rows[0] if name not in LAST and name != AUDIO]
    names = [*([AUDIO] if AUDIO in rows[0] else []), *names, *(n for n in LAST if n in rows[0])]
    head = "".join(f"<th>{escape(name)}</th>" for name in names)
    body = "".join(
        f"<tr>{''.join(f'<td>{_cell(name, row[name])}</td>' for name in names)}</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _cell(name: str, value: Any) -> str:
    if name == AUDIO and isinstance(value, bytes):
        content = base64.b64encode(value).decode()
        return f'<audio controls preload="none" src="data:audio/flac;base64,{content}"></audio>'
    if value is None:
        return ""
    if isinstance(value, bytes):
        return f"{len(value):,} bytes"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list):
        return escape(", ".join(map(str, value[:40])) + (" …" if len(value) > 40 else ""))
    return escape(str(value))
