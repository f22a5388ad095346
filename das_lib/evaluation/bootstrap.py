"""How sure a change of WER is: a paired bootstrap over utterances.

Both systems heard the same recordings, so utterances are drawn in pairs (Bisani and Ney, 2004):
what makes an utterance hard for both cancels out.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

DRAWS = 4000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """Change of WER relative to the base's, -0.1 for a tenth fewer errors, with its interval."""

    relative: float
    low: float
    high: float


def paired_change(
    base: Sequence[int], system: Sequence[int], *, draws: int = DRAWS, seed: int = 0
) -> Change | None:
    """Relative change of the errors, and its 95 % interval.

    Args:
        base: Word errors of the base in each utterance.
        system: Word errors of the system in the same utterances; the references are the same, so
            the ratio of errors is that of the rates.
        draws: Resamples.
        seed: Of the resamples.

    Returns:
        None where the base makes no error, so nothing is relative to it.
    """
    before, after = np.asarray(base, np.float64), np.asarray(system, np.float64)
    if not before.sum():
        return None
    drawn = np.random.default_rng(seed).multinomial(
        len(before), np.full(len(before), 1 / len(before)), size=draws
    )
    errors, changes = drawn @ before, drawn @ (after - before)
    relative = changes[errors > 0] / errors[errors > 0]
    low, high = np.quantile(relative, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    whole = float((after.sum() - before.sum()) / before.sum())
    return Change(relative=whole, low=float(low), high=float(high))
