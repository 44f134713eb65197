"""The identity bootstrap: against every possible draw on small data, against repeated experiments on larger ones."""

from collections import Counter

import numpy as np
import pytest

from keras_siamese.verification import (
    Interval,
    accuracy_at,
    auc,
    best_accuracy,
    bootstrap,
    difference,
    eer,
    intervals,
    operating_point,
    tar_at_far,
)
from tests.oracles import curves as oracles

EVERY_STATISTIC = [
    "auc",
    "eer",
    "best_accuracy",
    ("tar_at_far", 0.2),
    ("accuracy_at", 0.5),
    ("fmr_at", 0.5),
    ("fnmr_at", 0.5),
]


def identity_pairs(rng, pairs=300, identities=12, decimals=1):
    """Unequal classes over shared identities, with ties."""
    left, right = rng.integers(0, identities, (2, pairs))
    right = np.where(rng.random(pairs) < 0.3, left, right)
    same = left == right
    return same, np.round(rng.normal(size=pairs) + same, decimals), left, right


# --- against every possible draw: left, right, score; the third is the smallest that can lack a class

SMALL = {
    "three identities": [(0, 0, 3), (0, 0, 1), (1, 1, 2), (2, 2, 2), (0, 1, 2), (0, 2, 0), (2, 1, 1)],
    "four identities": [(0, 0, 3), (1, 1, 4), (1, 1, 0), (2, 2, 2), (0, 3, 2), (3, 2, 0), (1, 3, 1), (0, 2, 3)],
    "two identities": [(0, 0, 2), (1, 1, 0), (1, 0, 1)],
}
ORACLES = {
    "auc": oracles.auc,
    "eer": oracles.eer,
    "best_accuracy": lambda same, scores: oracles.best_accuracy(same, scores)[0],
    ("tar_at_far", 0.4): lambda same, scores: oracles.tar_at_far(same, scores, 0.4),
    ("accuracy_at", 2): lambda same, scores: oracles.accuracy_at(same, scores, 2),
    ("fmr_at", 1.5): lambda same, scores: oracles.error_rates(same, scores, 1.5)[0],
    ("fnmr_at", 1.5): lambda same, scores: oracles.error_rates(same, scores, 1.5)[1],
}


def small_pairs(name):
    left, right, scores = zip(*SMALL[name], strict=True)
    return [a == b for a, b in zip(left, right, strict=True)], list(scores), list(left), list(right)


def distribution(resamples, oracle):
    """The probability of each value of a statistic (nine digits) over equally likely draws with both classes."""
    drawn = [oracle(same, scores) for same, scores in resamples if any(same) and not all(same)]
    return {value: count / len(drawn) for value, count in Counter(round(float(value), 9) for value in drawn).items()}


def is_drawn_from(chances, replicates):
    """Whether replicates have exactly the values of a distribution, with its frequencies within five sigma."""
    found = Counter(np.round(replicates, 9).tolist())
    if not set(found) <= set(chances):
        return False
    return all(
        abs(found[value] / len(replicates) - chance) <= 5 * np.sqrt(chance * (1 - chance) / len(replicates))
        for value, chance in chances.items()
    )


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("statistic", ORACLES, ids=str)
def test_replicates_follow_the_distribution_over_all_draws_of_identities(name, statistic):
    pairs = small_pairs(name)
    chances = distribution(oracles.identity_resamples(*pairs), ORACLES[statistic])
    assert is_drawn_from(chances, bootstrap([statistic], *pairs, samples=20_000)[statistic].replicates)


@pytest.mark.parametrize("statistic", ["auc", "eer", ("tar_at_far", 0.4)], ids=str)
def test_without_identities_replicates_follow_the_distribution_over_all_draws_of_pairs(statistic):
    same, scores = [1, 1, 0, 0, 0], [2, 1, 1, 0, 2]
    chances = distribution(oracles.pair_resamples(same, scores), ORACLES[statistic])
    assert is_drawn_from(chances, bootstrap([statistic], same, scores, samples=20_000)[statistic].replicates)


def test_the_oracle_rejects_pairs_drawn_instead_of_identities():
    same, scores, left, right = small_pairs("three identities")
    chances = distribution(oracles.identity_resamples(same, scores, left, right), oracles.auc)
    assert not is_drawn_from(chances, bootstrap(["auc"], same, scores, samples=20_000)["auc"].replicates)


def test_the_oracle_rejects_self_duplicates():
    same, scores, left, right = small_pairs("three identities")
    chances = distribution(oracles.identity_resamples(same, scores, left, right), ORACLES["fnmr_at", 1.5])
    rng = np.random.default_rng(0)
    genuine, rejected = np.array(same), np.array(scores) < 1.5
    replicates = []
    for _ in range(20_000):
        drawn = np.bincount(rng.integers(0, 3, 3), minlength=3)
        weight = (drawn[left] * drawn[right])[genuine]  # w_i², copies paired with each other
        if weight.any() and (drawn > 0).sum() > 1:
            replicates.append(weight @ rejected[genuine] / weight.sum())
    assert not is_drawn_from(chances, replicates)


# --- against repeated experiments with shared identities


def experiment(rng, identities=40, partners=10, sharing=1.0):
    """Two genuine and `partners` impostor pairs per identity; `sharing` is how strongly its pairs correlate."""
    quality, appeal = rng.normal(size=(2, identities)) * sharing
    every = np.arange(identities)
    left = np.concatenate([every, every, np.repeat(every, partners)])
    right = np.concatenate(
        [every, every, (np.repeat(every, partners) + np.tile(np.arange(1, partners + 1), identities))]
    )
    right %= identities
    same = left == right
    scores = rng.normal(size=len(left)) + np.where(
        same, 2.5 + quality[left], (appeal[left] + appeal[right]) / np.sqrt(2)
    )
    return same, scores, left, right


def binomial_deviation(rate, pairs):
    return np.sqrt(rate * (1 - rate) / pairs)


def test_standard_errors_cover_where_binomial_ones_are_too_narrow():
    rng = np.random.default_rng(1)
    statistics = ["auc", "eer", ("fmr_at", 1.5), ("fnmr_at", 1.5)]
    experiments = [experiment(rng) for _ in range(250)]
    found = [bootstrap(statistics, *pairs, samples=100, seed=k) for k, pairs in enumerate(experiments)]
    for statistic in statistics:
        estimates = np.array([intervals[statistic].estimate for intervals in found])
        errors = np.array([intervals[statistic].standard_error for intervals in found])
        # Right on average, or up to the third too wide that the module's opening derives.
        assert 0.9 < np.sqrt(np.mean(errors**2)) / estimates.std() < 1.35, statistic
        covered = np.mean([i[statistic].low <= estimates.mean() <= i[statistic].high for i in found])
        assert covered > 0.9, statistic

    fmr = np.array([operating_point(same, scores, 1.5).fmr for same, scores, *_ in experiments])
    impostors = np.count_nonzero(~experiments[0][0])
    assert fmr.std() > 1.6 * binomial_deviation(fmr.mean(), impostors)
    covered = np.abs(fmr - fmr.mean()) <= 1.96 * binomial_deviation(fmr, impostors)
    assert covered.mean() < 0.8


def test_drawing_pairs_is_too_narrow_where_identities_are_shared():
    rng = np.random.default_rng(2)
    experiments = [experiment(rng) for _ in range(100)]
    estimates = [auc(same, scores) for same, scores, *_ in experiments]
    errors = [bootstrap(["auc"], *pairs[:2], samples=100)["auc"].standard_error for pairs in experiments]
    assert np.mean(errors) < 0.8 * np.std(estimates)


def test_impostor_noise_is_counted_thrice_where_no_identity_is_shared(rng):
    # 400 identities in 200 genuine pairs of their own and 100 impostor pairs of two others: nothing is shared.
    left = np.concatenate([np.arange(200), np.arange(200, 300)])
    right = np.concatenate([np.arange(200), np.arange(300, 400)])
    same = left == right
    scores = rng.permutation(300) / 300
    found = bootstrap([("fmr_at", 0.5), ("fnmr_at", 0.5)], same, scores, left, right, samples=4000)
    fmr, fnmr = found.values()
    assert fmr.standard_error / binomial_deviation(fmr.estimate, 100) == pytest.approx(np.sqrt(3), rel=0.1)
    assert fnmr.standard_error / binomial_deviation(fnmr.estimate, 200) == pytest.approx(1, rel=0.1)


def test_a_standard_error_agrees_with_the_mann_whitney_one_on_independent_noise(rng):
    same = np.repeat([True, False], [300, 500])
    found = bootstrap(["auc"], same, rng.normal(size=800), samples=1000)["auc"]
    assert found.standard_error == pytest.approx(np.sqrt(801 / (12 * 300 * 500)), rel=0.15)


# --- what an interval is


def test_estimates_are_the_figures_themselves(rng):
    pairs = same, scores, *_ = identity_pairs(rng)
    found = bootstrap(EVERY_STATISTIC, *pairs, samples=2)
    point = operating_point(same, scores, 0.5)
    assert [found[statistic].estimate for statistic in EVERY_STATISTIC] == [
        auc(same, scores),
        eer(same, scores),
        best_accuracy(same, scores)[0],
        tar_at_far(same, scores, 0.2),
        accuracy_at(same, scores, 0.5),
        point.fmr,
        point.fnmr,
    ]


def test_an_interval_summarises_its_replicates(rng):
    found = bootstrap(["eer"], *identity_pairs(rng), samples=500, confidence=0.8)["eer"]
    assert found.replicates.shape == (500,)
    assert found.confidence == 0.8
    assert np.mean(found.replicates < found.low) == pytest.approx(0.1, abs=0.01)
    assert np.mean(found.replicates > found.high) == pytest.approx(0.1, abs=0.01)
    assert found.standard_error == np.std(found.replicates, ddof=1)
    assert "replicates" not in repr(found)


@pytest.mark.parametrize("given", [True, False], ids=["identities", "pairs"])
def test_the_seed_decides(rng, given):
    pairs = identity_pairs(rng) if given else identity_pairs(rng)[:2]
    state = np.random.get_state()[1].copy()
    first, again, other = (bootstrap(["auc"], *pairs, seed=seed)["auc"].replicates for seed in (5, 5, 6))
    np.testing.assert_array_equal(first, again)
    assert not np.array_equal(first, other)
    np.testing.assert_array_equal(np.random.get_state()[1], state)


def test_order_sides_and_names_do_not_matter(rng):
    same, scores, left, right = identity_pairs(rng, identities=10)
    expected = bootstrap(EVERY_STATISTIC, same, scores, left, right)
    order = rng.permutation(len(same))
    names = np.array([f"person {k}" for k in range(10)])
    for found in (
        bootstrap(EVERY_STATISTIC, same[order], scores[order], left[order], right[order]),
        bootstrap(EVERY_STATISTIC, same, scores, right, left),
        bootstrap(EVERY_STATISTIC, same, np.exp(scores), names[left], names[right])
        | {statistic: expected[statistic] for statistic in EVERY_STATISTIC[4:]},  # at a threshold on the scores' scale
    ):
        for statistic in EVERY_STATISTIC:
            np.testing.assert_array_equal(found[statistic].replicates, expected[statistic].replicates)


def test_the_block_size_does_not_matter(rng, monkeypatch):
    pairs = identity_pairs(rng, pairs=300, identities=30)
    expected = bootstrap(["eer"], *pairs)["eer"].replicates
    monkeypatch.setattr(intervals, "BLOCK", 1000)
    np.testing.assert_array_equal(bootstrap(["eer"], *pairs)["eer"].replicates, expected)
    monkeypatch.setattr(intervals, "BLOCK", 1)
    np.testing.assert_array_equal(bootstrap(["eer"], *pairs)["eer"].replicates, expected)


def test_labels_that_contradict_the_identities_are_weighted_by_identity(rng):
    # Flipped labels are a fault that the diagnosis measures, so they must not stop the bootstrap.
    same, scores, left, right = identity_pairs(rng)
    plain, flipped = (bootstrap(["auc"], labels, scores, left, right)["auc"] for labels in (same, ~same))
    np.testing.assert_allclose(flipped.replicates, 1 - plain.replicates, atol=1e-12)


def test_perfect_scores_have_no_width():
    same = np.repeat([1, 0], [20, 30])
    found = bootstrap(["eer", "auc"], same, same * 1.0)
    assert (found["eer"].low, found["eer"].high, found["eer"].standard_error) == (0, 0, 0)
    assert (found["auc"].low, found["auc"].high) == (1, 1)


def test_a_single_pair_of_each_class_is_drawn_until_both_are_there():
    found = bootstrap(["auc"], [1, 0], [0.2, 0.1], [0, 1], [0, 2], samples=50)["auc"]
    assert found.replicates.tolist() == [1] * 50


# --- difference


def test_a_difference_sets_every_replicate_against_every_other(rng):
    first, second = (bootstrap(["eer"], *identity_pairs(rng), samples=30)["eer"] for _ in range(2))
    gap = difference(first, second)
    expected = sorted(a - b for a in first.replicates for b in second.replicates)
    np.testing.assert_allclose(sorted(gap.replicates), expected)
    assert gap.estimate == first.estimate - second.estimate
    assert (gap.low, gap.high) == pytest.approx(tuple(np.quantile(expected, [0.025, 0.975])))
    assert gap.standard_error == pytest.approx(np.hypot(first.standard_error, second.standard_error))


def test_a_difference_does_not_depend_on_common_seeds(rng):
    one = bootstrap(["eer"], *identity_pairs(rng), seed=0)["eer"]
    gap = difference(one, one)
    assert gap.standard_error == pytest.approx(np.sqrt(2) * one.standard_error)
    assert gap.low < 0 < gap.high


def test_a_difference_wants_one_confidence():
    one, other = (Interval.of(0.1, np.array([0.1, 0.2]), confidence) for confidence in (0.9, 0.95))
    with pytest.raises(ValueError, match=r"`first` and `second` must have the same confidence; got 0\.9 and 0\.95"):
        difference(one, other)


# --- bad input


@pytest.mark.parametrize(
    "statistics, error, message",
    [
        ("auc", TypeError, "`statistics` must be a list of statistics; got the string 'auc'"),
        ([], ValueError, "`statistics` must name at least one"),
        (["EER"], ValueError, r'`statistics` must be among \("auc"\).*\("tar_at_far", far\).*got \'EER\''),
        (["tar_at_far"], ValueError, "got 'tar_at_far'"),
        ([("auc", 1)], ValueError, r"got \('auc', 1\)"),
        ([("tar_at_far", 1.5)], ValueError, r"`tar_at_far` must be in \[0, 1\]; got 1.5"),
        ([("fmr_at", "x")], TypeError, "`fmr_at` must be a number"),
    ],
)
def test_unknown_statistics_are_refused(statistics, error, message):
    with pytest.raises(error, match=message):
        bootstrap(statistics, [1, 0], [0.2, 0.1])


@pytest.mark.parametrize(
    "options, message",
    [
        ({"left": [0, 0]}, "`right` must be given if `left` is"),
        ({"right": [0, 0]}, "`left` must be given if `right` is"),
        ({"left": [0, 0], "right": [0]}, "`right` must have one entry for each of the 2"),
        ({"left": [0, 0], "right": ["0", "1"]}, "`left` and `right` must both be strings or both be integers"),
        ({"samples": 1}, "`samples` must be at least 2"),
        ({"confidence": 1.0}, "`confidence` must be in"),
        ({"confidence": 95}, "`confidence` must be in"),
        ({"seed": -1}, "`seed` must be at least 0"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    with pytest.raises(ValueError, match=message):
        bootstrap(["auc"], [1, 0], [0.2, 0.1], **options)
