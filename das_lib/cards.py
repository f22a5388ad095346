"""What the cards of datasets and models share: Markdown in the Hugging Face form."""

from collections.abc import Mapping
from typing import Any

import yaml

from das_lib.tables import markdown_table

CARD = "README.md"


def card_head(front: Mapping[str, Any], title: str) -> list[str]:
    """Lines of the front matter and the title."""
    return [
        "---",
        yaml.safe_dump(dict(front), sort_keys=False).strip(),
        "---",
        "",
        f"# {title}",
        "",
    ]


def rejected_section(reasons: Mapping[str, int], what: str) -> list[str]:
    """Lines on what was rejected, counted in ``what``; none where nothing was."""
    rows = [[reason, str(count)] for reason, count in reasons.items()]
    head = ["reason", what]
    return ["## Rejected", "", *markdown_table([head, *rows], (1,)), ""] if rows else []
