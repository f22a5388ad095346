import pytest

from das_lib.evaluation.bootstrap import Change
from das_lib.evaluation.calibrate import NO_ADAPTER, choose_tau, verdicts
from das_lib.evaluation.wer import Wer

TAUS = (0.01, 0.1, 0.2)


def results(base: tuple[int, int, int], *by_tau: tuple[int, int, int]):
    """Errors on two domains and unrelated speech, of the base and with each margin."""
    systems = dict(zip(("base", *(f"das@{tau:g}" for tau in TAUS)), (base, *by_tau), strict=True))
    return {
        (system, name): Wer(substitutions=n, deletions=0, insertions=0, words=100, utterances=9)
        for system, errors in systems.items()
        for name, n in zip(("music", "sports", "unrelated"), errors, strict=True)
    }


def choose(*errors, max_rise=0.1):
    return choose_tau(results(*errors), ["music", "sports"], "unrelated", TAUS, max_rise)


def test_the_margin_with_the_fewest_errors_in_domain_is_taken():
    found = choose((10, 10, 20), (8, 7, 20), (5, 7, 22), (9, 9, 20))
    assert (found.tau, found.in_domain, found.base_in_domain) == (0.1, 0.06, 0.1)
    assert (found.unrelated, found.base_unrelated) == (0.22, 0.2)


def test_what_harms_unrelated_speech_is_not_taken():
    assert choose((10, 10, 20), (1, 1, 23), (5, 7, 23), (9, 9, 22)).tau == 0.2
    assert choose((10, 10, 20), (1, 1, 23), (5, 7, 22), (9, 9, 22), max_rise=0.05).tau == NO_ADAPTER


def test_among_equals_the_larger_margin_changes_less():
    assert choose((10, 10, 20), (5, 5, 20), (4, 6, 20), (5, 5, 20)).tau == 0.2


@pytest.mark.parametrize("errors", [(11, 10, 20), (10, 10, 20)])
def test_where_nothing_helps_the_base_decides_alone(errors):
    found = choose((10, 10, 20), errors, errors, errors)
    assert (found.tau, found.in_domain, found.unrelated) == (NO_ADAPTER, 0.1, 0.2)


def test_an_adapter_is_judged_by_its_interval():
    changes = {
        ("lora:music", "m"): Change(relative=-0.3, low=-0.5, high=-0.1),
        ("lora:sports", "s"): Change(relative=0.3, low=0.1, high=0.5),
        ("lora:weather", "w"): Change(relative=-0.1, low=-0.3, high=0.1),
    }
    domains = {"music": "m", "sports": "s", "weather": "w", "news": "n"}
    assert verdicts(changes, domains) == {
        "music": "helps",
        "sports": "harms",
        "weather": "unsure",
        "news": "unsure",
    }
