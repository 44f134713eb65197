"""Cross-fitted accuracy: against a loop over pairs, and that no threshold has seen what it judges."""

import numpy as np
import pytest

from keras_siamese.verification import accuracy_at, best_accuracy, cross_fitted_accuracy
from keras_siamese.verification.crossfit import cross_fitted_decisions, deal_folds
from keras_siamese.verification.points import best_point, operating_points
from tests.oracles import curves as oracles


def identity_pairs(seed, pairs=60, identities=9):
    """Unequal classes over shared identities, with ties."""
    rng = np.random.default_rng(seed)
    left, right = rng.integers(0, identities, (2, pairs))
    right = np.where(rng.random(pairs) < 0.4, left, right)
    same = left == right
    return same, np.round(rng.normal(size=pairs) + same, 1), left, right


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(2, 8))])
@pytest.mark.parametrize("folds", [2, 3, 10])
def test_with_identities(seed, folds):
    same, scores, left, right = identity_pairs(seed)
    left_folds, right_folds = deal_folds(same, (left, right, 9), folds, seed)
    expected = oracles.cross_fitted_accuracy(same.tolist(), scores.tolist(), left_folds, right_folds)
    found, threshold = cross_fitted_accuracy(same, scores, left, right, folds=folds, seed=seed)
    assert found == float(expected)
    assert threshold == best_accuracy(same, scores)[1]


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.deep) for seed in range(2, 4))])
@pytest.mark.parametrize("folds", [2, 7])
def test_without_identities(seed, folds):
    same, scores, *_ = identity_pairs(seed)
    dealt = deal_folds(same, None, folds, seed)
    expected = oracles.cross_fitted_accuracy(same.tolist(), scores.tolist(), *dealt)
    assert cross_fitted_accuracy(same, scores, folds=folds, seed=seed)[0] == float(expected)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_decisions_are_those_of_the_best_point_of_the_other_folds(dtype):
    """Also where the best threshold accepts none of the other folds' pairs, but one that is tested scores higher."""
    rng, above = np.random.default_rng(0), 0
    for _ in range(60):
        same, folds = rng.random(30) < rng.choice([0.1, 0.5]), np.arange(30) % 3
        scores = (np.round(rng.normal(size=30), 1) - 2 * same).astype(dtype)
        found = cross_fitted_decisions(same, scores, None, folds, 0)
        chosen = [folds != fold for fold in range(3)]
        if not all(0 < same[one].sum() < one.sum() for one in chosen):
            assert found is None
            continue
        best = [best_point(operating_points(same[one], scores[one]))[1] for one in chosen]
        above += sum(scores[one].max() < threshold < scores.max() for one, threshold in zip(chosen, best, strict=True))
        np.testing.assert_array_equal(found, scores >= np.array(best)[folds])
    assert above > 10


def test_the_oracle_rejects_a_threshold_from_all_pairs():
    same, scores, left, right = identity_pairs(0)
    dealt = deal_folds(same, (left, right, 9), 3, 0)
    assert (
        float(oracles.cross_fitted_accuracy(same.tolist(), scores.tolist(), *dealt)) != best_accuracy(same, scores)[0]
    )


def test_the_oracle_rejects_folds_by_the_left_identity_alone():
    cases = [identity_pairs(seed) for seed in range(8)]
    dealt = [deal_folds(same, (left, right, 9), 3, 0) for same, _, left, right in cases]
    assert any(
        oracles.cross_fitted_accuracy(same, scores, folds, other)
        != oracles.cross_fitted_accuracy(same, scores, folds, folds)
        for (same, scores, *_), (folds, other) in zip(cases, dealt, strict=True)
    )


def test_identities_are_dealt_whole_and_evenly():
    same, _, left, right = identity_pairs(1, pairs=500, identities=23)
    left_folds, right_folds = deal_folds(same, (left, right, 23), 5, 0)
    fold_of = dict(zip([*left, *right], [*left_folds, *right_folds], strict=True))
    assert [fold_of[k] for k in left] == left_folds.tolist()
    assert [fold_of[k] for k in right] == right_folds.tolist()
    sizes = np.bincount(list(fold_of.values()))
    assert (sizes.min(), sizes.max()) == (4, 5)


def test_pairs_are_dealt_evenly_in_each_class():
    same = np.repeat([True, False], [13, 24])
    folds, _ = deal_folds(same, None, 5, 0)
    for kind in (same, ~same, np.ones(37, bool)):
        sizes = np.bincount(folds[kind], minlength=5)
        assert sizes.max() - sizes.min() <= 1


def test_on_noise_it_is_chance_where_the_best_accuracy_is_not():
    rng = np.random.default_rng(0)
    same = np.arange(100) % 2
    tasks = rng.normal(size=(100, 100))
    assert np.mean([best_accuracy(same, scores)[0] for scores in tasks]) > 0.55
    assert np.mean([cross_fitted_accuracy(same, scores)[0] for scores in tasks]) == pytest.approx(0.49, abs=0.02)


@pytest.mark.parametrize("seed", range(4))
def test_no_pair_that_touches_a_fold_has_a_say_in_it(rng, seed):
    same, scores, left, right = identity_pairs(seed)
    identities = left, right, 9
    left_folds, right_folds = deal_folds(same, identities, 3, seed)
    expected = cross_fitted_decisions(same, scores, identities, 3, seed)
    for pair, fold in enumerate(left_folds):
        touching = (left_folds == fold) | (right_folds == fold)
        changed = np.where(touching, rng.normal(size=len(scores)) * 9, scores)
        changed[pair] = scores[pair]
        assert cross_fitted_decisions(same, changed, identities, 3, seed)[pair] == expected[pair]


def test_fewer_identities_than_folds_leave_out_one_identity_at_a_time():
    same, scores, left, right = identity_pairs(2, identities=5)
    expected = float(oracles.cross_fitted_accuracy(same.tolist(), scores.tolist(), left, right))
    for seed in range(3):
        assert cross_fitted_accuracy(same, scores, left, right, folds=50, seed=seed)[0] == expected


def test_fewer_pairs_than_folds_leave_out_one_pair_at_a_time():
    same, scores, *_ = identity_pairs(2, pairs=12)
    each = np.arange(12)
    expected = float(oracles.cross_fitted_accuracy(same.tolist(), scores.tolist(), each, each))
    assert (
        cross_fitted_accuracy(same, scores, folds=12)[0] == cross_fitted_accuracy(same, scores, folds=99)[0] == expected
    )


def test_perfect_scores_are_perfect_at_thresholds_from_elsewhere():
    same, _, left, right = identity_pairs(3)
    accuracy, threshold = cross_fitted_accuracy(same, same * 2.0, left, right)
    assert (accuracy, threshold) == (1, 2)
    assert accuracy_at(same, same * 2.0, threshold) == 1


def test_names_serve_as_well_as_numbers():
    same, scores, left, right = identity_pairs(4)
    names = np.array([f"person {k}" for k in range(9)])
    expected = cross_fitted_accuracy(same, scores, left, right)
    assert cross_fitted_accuracy(same, scores, names[left], names[right]) == expected


@pytest.mark.parametrize(
    "same, scores, left, right",
    [
        ([1, 0, 0], [3, 2, 1], None, None),  # without the genuine pair there is no threshold
        ([1, 1, 0], [3, 2, 1], [0, 1, 0], [0, 1, 1]),  # without either identity there is no impostor pair
        ([1, 0, 0], [3, 2, 1], [0, 0, 1], [0, 1, 2]),  # without identity 0 there is no genuine pair
    ],
    ids=["one genuine pair", "two identities", "one identity with genuine pairs"],
)
def test_where_no_threshold_can_be_chosen_it_says_so(same, scores, left, right):
    with pytest.raises(
        ValueError, match=r"`same` must hold more pairs: both classes must remain .* genuine and \d impostor pairs"
    ):
        cross_fitted_accuracy(same, scores, left, right)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"folds": 1}, "`folds` must be at least 2"),
        ({"seed": -1}, "`seed` must be at least 0"),
        ({"left": [0] * 60}, "`right` must be given if `left` is"),
        ({"left": [0], "right": [0]}, "`left` must have one entry for each of the 60"),
    ],
)
def test_bad_options_are_refused_by_name(options, message):
    same, scores, *_ = identity_pairs(0)
    with pytest.raises(ValueError, match=message):
        cross_fitted_accuracy(same, scores, **options)


def test_folds_of_a_protocol_are_kept(rng):
    """LFW's View 2: the threshold is chosen on nine of ten folds and applied to the tenth."""
    same, fold = np.tile(np.repeat([1, 0], 30), 10), np.repeat(np.arange(10), 60)
    scores = rng.normal(size=600) + 1.5 * same + 0.3 * rng.normal(size=10)[fold]
    shuffled = rng.permutation(600)
    right = 0
    for one in range(10):
        here, elsewhere = fold == one, fold != one
        candidates = scores[elsewhere]
        accuracies = [np.mean((candidates >= threshold) == same[elsewhere]) for threshold in candidates]
        threshold = candidates[np.flatnonzero(accuracies == np.max(accuracies))]
        right += max(np.sum((scores[here] >= each) == same[here]) for each in threshold)
    accuracy, _ = cross_fitted_accuracy(same[shuffled], scores[shuffled], folds=fold[shuffled])
    assert abs(accuracy - right / 600) <= 0.01  # of equally good thresholds it need not take the luckiest
    assert accuracy == cross_fitted_accuracy(same, scores, folds=[f"set {one}" for one in fold])[0]
    assert accuracy != cross_fitted_accuracy(same, scores, folds=np.zeros(600, int) + np.arange(600) % 2)[0]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": [0, 1, 0]}, "`folds` must have one entry for each of the 4 pairs; got 3"),
        ({"folds": [2, 2, 2, 2]}, "`folds` must name at least 2 folds; all 4 pairs are in fold"),
        ({"folds": [0, 0, 1, 1], "left": [1, 2, 3, 4], "right": [1, 2, 4, 3]}, "`left` and `right` must be None where"),
        ({"folds": [0, 1, 2, 2]}, "any one of the 3 folds is left out"),
    ],
)
def test_folds_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        cross_fitted_accuracy([1, 0, 1, 1], [0.4, 0.3, 0.2, 0.1], **options)
