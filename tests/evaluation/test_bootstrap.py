import numpy as np
import pytest

from das_lib.evaluation.bootstrap import paired_change


def test_the_change_is_that_of_the_sums():
    change = paired_change([2, 0, 3], [1, 0, 3])
    assert change.relative == pytest.approx(-1 / 5)
    assert change.low <= change.relative <= change.high


def test_a_system_that_makes_the_same_errors_has_not_changed():
    change = paired_change([1, 2, 0, 4], [1, 2, 0, 4])
    assert (change.relative, change.low, change.high) == (0, 0, 0)


def test_what_is_hard_for_both_cancels_out():
    rng = np.random.default_rng(0)
    hard = rng.poisson(1.5, 400)
    system = np.maximum(0, hard - rng.integers(0, 2, 400))
    paired = paired_change(hard, system)
    shuffled = paired_change(hard, rng.permutation(system))
    assert paired.high - paired.low < 0.5 * (shuffled.high - shuffled.low)


def test_the_interval_holds_the_truth_about_19_times_in_20():
    inside = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        base = rng.poisson(1.0, 150)
        system = rng.binomial(base, 0.8)  # a fifth fewer errors
        change = paired_change(base, system, draws=500, seed=seed)
        inside += change.low <= -0.2 <= change.high
    assert 180 <= inside <= 199


def test_nothing_is_relative_to_a_base_without_errors():
    assert paired_change([0, 0], [0, 1]) is None
