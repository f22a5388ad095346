"""Choosing tau, and judging the adapters, by speech that no adapter was trained on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from das_lib.evaluation.bootstrap import Change
from das_lib.evaluation.wer import Wer
from das_lib.train.systems import BASE, LORA, at_tau, system_name

NO_ADAPTER = 1.0
"""A margin that no confidence exceeds: the base decides alone."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """The choice, and what it is worth."""

    tau: float
    in_domain: float
    """WER with it over the domains' sets together."""
    base_in_domain: float
    """The base's."""
    unrelated: float
    """WER with it on unrelated speech."""
    base_unrelated: float
    """The base's."""


def choose_tau(
    results: Mapping[tuple[str, str], Wer],
    in_domain: Sequence[str],
    unrelated: str,
    taus: Sequence[float],
    max_rise: float,
) -> Calibrated:
    """Of the margins that leave unrelated speech as it was, the one with the fewest errors.

    Among equals the larger one, which changes less. Where none leaves it as it was or none helps,
    the margin is `NO_ADAPTER`.

    Args:
        results: WER by (system, test set): of the base and of `at_tau` for each margin.
        in_domain: Test sets of the domains.
        unrelated: The test set of no domain.
        taus: Margins.
        max_rise: Of the unrelated WER, relative to the base's.
    """

    def errors(system: str) -> int:
        return sum(results[system, name].edits for name in in_domain)

    words = sum(results[BASE, name].words for name in in_domain)
    allowed = results[BASE, unrelated].edits * (1 + max_rise)
    fit = [tau for tau in taus if results[at_tau(tau), unrelated].edits <= allowed]
    best = min(fit, key=lambda tau: (errors(at_tau(tau)), -tau), default=NO_ADAPTER)
    system = at_tau(best)
    if best == NO_ADAPTER or errors(system) >= errors(BASE):
        best, system = NO_ADAPTER, BASE
    return Calibrated(
        tau=best,
        in_domain=errors(system) / words,
        base_in_domain=errors(BASE) / words,
        unrelated=results[system, unrelated].wer,
        base_unrelated=results[BASE, unrelated].wer,
    )


def verdicts(
    changes: Mapping[tuple[str, str], Change], domains: Mapping[str, str]
) -> dict[str, str]:
    """Whether each adapter alone helps on its own domain: ``helps``, ``harms`` or ``unsure``.

    Args:
        changes: Of each adapter's WER against the base's, by (system, test set).
        domains: Test set by domain.
    """
    found = {}
    for domain, name in domains.items():
        change = changes.get((system_name(LORA, domain), name))
        if change is None or change.low <= 0 <= change.high:
            found[domain] = "unsure"
        else:
            found[domain] = "helps" if change.high < 0 else "harms"
    return found
