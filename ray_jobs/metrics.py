"""What Ray's dashboard and Prometheus see of a run: rows, rejections, audio, tokens.

Ray exports them as ``ray_das_rows_accepted_total`` and so on, by stage, dataset and reason.
"""

from collections import Counter
from functools import cache

from ray.util import metrics

from das_lib.dataset import Dataset
from das_lib.rows import Outcome

STEP = ("stage", "name")


def count(dataset: Dataset, outcome: Outcome, amount: str | None = None) -> None:
    """Count a committed block.

    Args:
        dataset: Where it was committed.
        outcome: What was committed.
        amount: What ``outcome.amount`` is of: ``audio_seconds`` or ``tokens``; None if of nothing.
    """
    tags = {"stage": dataset.stage, "name": dataset.name}
    _add("rows_accepted", outcome.rows.num_rows, tags)
    for reason, rejected in Counter(reject.reason for reject in outcome.rejects).items():
        _add("rows_rejected", rejected, {**tags, "reason": reason})
    if amount is not None:
        _add(amount, outcome.amount, tags)


def _add(name: str, value: float, tags: dict[str, str]) -> None:
    if value > 0:
        _counter(f"das_{name}", tuple(tags)).inc(value, tags)


@cache
def _counter(name: str, tags: tuple[str, ...]) -> metrics.Counter:
    return metrics.Counter(name, DESCRIPTIONS[name], tags)


DESCRIPTIONS = {
    "das_rows_accepted": "Rows committed.",
    "das_rows_rejected": "Rows rejected, by reason.",
    "das_audio_seconds": "Seconds of audio spoken or read.",
    "das_tokens": "Tokens that the LLM wrote.",
}
