"""Tables of cells as text: for a terminal and in Markdown."""

from collections.abc import Sequence

Rows = Sequence[Sequence[str]]
"""The first is the head."""


def markdown_table(rows: Rows, right: Sequence[int] = ()) -> list[str]:
    """Lines of Markdown; the columns of ``right`` are aligned there."""
    rule = [f"---{':' if i in right else ''}" for i in range(len(rows[0]))]
    return [f"| {' | '.join(row)} |" for row in (rows[0], rule, *rows[1:])]


def plain_table(rows: Rows, right: Sequence[int] = ()) -> str:
    """Columns of even width, two blanks apart; those of ``right`` are aligned there."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if i in right else cell.ljust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )
