"""What a number of pairs can show: against every order of a few pairs, and against simulated noise."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_siamese.verification import auc_floor, best_accuracy_floor, rule_of_3, rule_of_30
from tests.oracles import curves as oracles

# --- rule of 30, rule of 3


@pytest.mark.parametrize(
    "far, impostors, mark",
    [
        (0.01, 3000, "plain"),
        (0.01, 2999, "uncertain"),
        (0.01, 300, "uncertain"),
        (0.01, 299, "withheld"),
        (0.0003, 100_000, "plain"),  # 29.999… in binary
        (0.07, 43, "uncertain"),
        (1.0, 30, "plain"),
        (1e-6, 1, "withheld"),
    ],
)
def test_rule_of_30(far, impostors, mark):
    assert rule_of_30(far, impostors).mark == mark


@given(st.integers(1, 99), st.integers(2, 7))
def test_the_pairs_needed_are_the_fewest_that_do(digits, places):
    far = digits / 10**places
    _, _, needed, shown_from = rule_of_30(far, 1)
    assert rule_of_30(far, needed).mark == "plain"
    assert needed == 1 or rule_of_30(far, needed - 1).mark != "plain"
    assert rule_of_30(far, shown_from).mark != "withheld"
    assert shown_from == 1 or rule_of_30(far, shown_from - 1).mark == "withheld"


@given(st.integers(4, 10**7))
def test_no_error_at_the_bound_of_the_rule_of_3_is_rarer_than_5_percent(pairs):
    assert (1 - rule_of_3(pairs)) ** pairs < 0.05
    assert (1 - 0.99 * rule_of_3(pairs)) ** pairs > 0.05 or pairs < 300


def test_three_pairs_show_nothing():
    assert rule_of_3(1) == rule_of_3(3) == 1


# --- floors


@pytest.mark.parametrize("genuines, impostors", [(3, 4), (6, 2), (1, 7), (5, 5), (1, 1)])
@pytest.mark.parametrize("quantile", [0.53, 0.77, 0.93])
def test_best_accuracy_floor_over_all_orders(genuines, impostors, quantile):
    best = sorted(oracles.best_accuracy(*pairs)[0] for pairs in oracles.orders(genuines, impostors))
    expected = best[math.ceil(quantile * len(best)) - 1]
    assert best_accuracy_floor(genuines, impostors, quantile) == pytest.approx(float(expected), abs=1e-12)


def test_the_loop_over_orders_rejects_the_limit_law():
    # sup of the Brownian bridge: right for many pairs, half a pair off for few.
    best = sorted(oracles.best_accuracy(*pairs)[0] for pairs in oracles.orders(5, 5))
    limit = 0.5 + math.sqrt(-math.log(1 - 0.93) / (2 * 10))
    assert abs(float(best[math.ceil(0.93 * len(best)) - 1]) - limit) > 0.01


def noise_accuracies(rng, genuines, impostors, repeats):
    """The best accuracy of each of `repeats` random orders: all pairs are rejected, then accepted one by one."""
    steps = np.repeat(np.array([1, -1], np.int32), [genuines, impostors])
    walks = np.cumsum(rng.permuted(np.tile(steps, (repeats, 1)), axis=1), axis=1)
    return (impostors + np.maximum(walks.max(axis=1), 0)) / (genuines + impostors)


# The table of verification.md, three digits of a simulation: the exact law lies within a pair of it or within rounding.
@pytest.mark.parametrize(
    "pairs, documented", [(100, 0.640), (200, 0.600), (500, 0.568), (1000, 0.546), (2000, 0.533), (6000, 0.519)]
)
def test_best_accuracy_floor_on_simulated_noise(rng, pairs, documented):
    repeats = 4000 if pairs <= 2000 else 1500
    floor = best_accuracy_floor(pairs // 2, pairs // 2)
    reached = noise_accuracies(rng, pairs // 2, pairs // 2, repeats)
    slack = 4 * math.sqrt(0.01 * 0.99 / repeats)
    assert np.mean(reached > floor + 1e-9) <= 0.01 + slack
    assert np.mean(reached > floor - 1 / pairs - 1e-9) >= 0.01 - slack
    assert floor == pytest.approx(documented, abs=max(1.01 / pairs, 0.0006))


def test_best_accuracy_floor_with_classes_of_unequal_size(rng):
    reached = noise_accuracies(rng, 50, 450, 4000)
    floor = best_accuracy_floor(50, 450)
    assert floor >= 0.9
    assert np.mean(reached > floor + 1e-9) <= 0.01 + 4 * math.sqrt(0.01 / 4000)
    assert best_accuracy_floor(450, 50) == floor


def test_best_accuracy_floor_of_ten_million_pairs():
    # Here the limit law holds: ½ + √(−ln(.01) / 2n).
    limit = 0.5 + math.sqrt(-math.log(0.01) / 2e7)
    assert best_accuracy_floor(5_000_000, 5_000_000) == pytest.approx(limit, abs=1e-6)


@pytest.mark.parametrize("genuines, impostors", [(3, 4), (1, 6), (5, 2)])
def test_the_deviation_behind_the_auc_floor_over_all_orders(genuines, impostors):
    aucs = [float(oracles.auc(*pairs)) for pairs in oracles.orders(genuines, impostors)]
    z = 0.5244005127080407  # of the 70th percentile, where no end is clipped
    assert (auc_floor(genuines, impostors, 0.7) - 0.5) / z == pytest.approx(np.std(aucs))


def test_auc_floor_on_simulated_noise(rng):
    ranks = rng.permuted(np.tile(np.arange(1, 161), (4000, 1)), axis=1)[:, :60]
    aucs = (ranks.sum(axis=1) - 60 * 61 / 2) / (60 * 100)
    assert np.mean(aucs > auc_floor(60, 100)) == pytest.approx(0.01, abs=0.006)
    assert np.mean(aucs < auc_floor(60, 100, 0.01)) == pytest.approx(0.01, abs=0.006)


def test_auc_floor_stays_in_range():
    assert auc_floor(1, 1, 0.999) == 1
    assert auc_floor(1, 1, 0.001) == 0


@pytest.mark.parametrize("floor", [best_accuracy_floor, auc_floor])
def test_floors_refuse_bad_input_by_name(floor):
    with pytest.raises(ValueError, match="`genuines` must be at least 1"):
        floor(0, 5)
    with pytest.raises(TypeError, match="`impostors` must be an integer"):
        floor(5, 5.0)
    with pytest.raises(ValueError, match="`quantile`"):
        floor(5, 5, 1.0)


def test_rules_refuse_bad_input_by_name():
    with pytest.raises(ValueError, match=r"`far` must be in \(0, 1\]"):
        rule_of_30(0, 100)
    with pytest.raises(ValueError, match="`impostors` must be at least 1"):
        rule_of_30(0.1, 0)
    with pytest.raises(ValueError, match="`pairs` must be at least 1"):
        rule_of_3(0)
