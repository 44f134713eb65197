"""The pairs that are compared: which ones are drawn of a labelled set, and what counts as validation data."""

import copy

import keras
import numpy as np
import pytest

from keras_siamese.data import PairSequence
from keras_siamese.scoring import Trials, draw_pairs, spread_over_identities, spread_over_kinds
from tests.oracles import diagnosis as oracles

FEATURES = 4


@pytest.fixture
def x(rng):
    return rng.normal(size=(30, FEATURES)).astype("float32")


LABELS = np.repeat(np.arange(10), 3)


def codes_of(sizes):
    return np.random.default_rng(1).permutation(np.repeat(np.arange(len(sizes)), sizes))


@pytest.mark.parametrize(
    ("sizes", "max_pairs"),
    [
        ([3] * 10, 1000),  # all pairs
        ([3] * 10, 435),  # just all
        ([3] * 10, 434),
        ([3] * 10, 60),  # all 30 genuine
        ([3] * 10, 20),  # a draw of both
        ([20, 1, 1, 1], 60),  # hardly an impostor
        ([1] * 30 + [2], 50),  # one genuine pair
        ([9, 8], 10),
    ],
)
def test_a_draw_has_exact_counts_distinct_pairs_and_right_labels(sizes, max_pairs):
    codes = codes_of(sizes)
    genuine, impostor = oracles.pairs_of(codes.tolist())
    left, right = draw_pairs(codes, max_pairs, np.random.default_rng(0))
    drawn = list(zip(left.tolist(), right.tolist(), strict=True))
    assert len(set(drawn)) == len(drawn)
    assert all(i < j for i, j in drawn)
    counts = (len(set(drawn) & genuine), len(set(drawn) & impostor))
    if len(genuine) + len(impostor) <= max_pairs:
        assert counts == (len(genuine), len(impostor))
    else:
        wanted = min(len(genuine), max_pairs // 2)
        assert counts == (wanted, min(len(impostor), max_pairs - wanted))
    assert sum(counts) == len(drawn)


def test_every_pair_is_drawn_equally_often():
    codes = codes_of([4, 3, 2, 5, 1])
    genuine, impostor = oracles.pairs_of(codes.tolist())
    rng, times, rounds = np.random.default_rng(0), dict.fromkeys(genuine | impostor, 0), 3000
    for _ in range(rounds):
        for pair in zip(*draw_pairs(codes, 20, rng), strict=True):
            times[pair] += 1
    for kind in (genuine, impostor):
        expected = rounds * 10 / len(kind)
        chi = sum((times[pair] - expected) ** 2 / expected for pair in kind)
        # Without replacement a pair's count varies less than Poisson's; the statistic is about its degrees of freedom.
        assert chi < len(kind) + 4 * np.sqrt(2 * len(kind))
        assert min(times[pair] for pair in kind) > 0.85 * expected


def test_the_draw_follows_the_seed():
    codes = codes_of([5] * 40)
    one, again, other = (draw_pairs(codes, 200, np.random.default_rng(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one, again)
    assert not np.array_equal(one, other)


def test_many_samples_need_no_list_of_all_pairs():
    codes = np.arange(100_000) // 4  # 5 · 10⁹ pairs
    left, right = draw_pairs(codes, 10_000, np.random.default_rng(0))
    assert len(left) == 10_000 and np.count_nonzero(codes[left] == codes[right]) == 5_000


@pytest.mark.parametrize(("max_items", "counts"), [(9, {1, 2}), (14, {1, 2, 4, 5}), (1000, {1, 2, 40})])
def test_items_are_kept_evenly_and_two_at_least(max_items, counts):
    codes = codes_of([40, 1, 2, 40, 2])
    kept = spread_over_identities(codes, max_items, np.random.default_rng(0))
    assert len(kept) == len(set(kept.tolist())) == min(max_items, len(codes))
    assert (np.diff(kept) > 0).all()
    sizes = np.bincount(codes[kept])
    assert set(sizes.tolist()) == counts


def test_too_few_items_for_all_identities_still_come_in_twos():
    codes = np.repeat(np.arange(50), 4)
    sizes = np.bincount(codes[spread_over_identities(codes, 20, np.random.default_rng(0))], minlength=50)
    assert sorted(sizes.tolist()) == [0] * 40 + [2] * 10


def test_trials_of_labelled_samples_are_all_their_pairs(x):
    trials = Trials.of((x, LABELS))
    assert len(trials) == 435 and np.count_nonzero(trials.same) == 30
    np.testing.assert_array_equal(trials.same, LABELS[trials.left] == LABELS[trials.right])
    left, right = trials.pair_identities
    np.testing.assert_array_equal(left == right, trials.same)
    np.testing.assert_array_equal(trials.items, x)
    named = Trials.of((x, np.array([f"person {label}" for label in LABELS])))
    np.testing.assert_array_equal(named.same, trials.same)


@pytest.mark.parametrize(("identities", "each", "kept"), [(60, 12, 480), (60, 6, 360), (20, 30, 400), (4, 50, 200)])
def test_trials_keep_8_items_of_each_identity_or_400_items(identities, each, kept):
    labels = np.repeat(np.arange(identities), each)
    trials = Trials.of(
        (np.zeros((len(labels), 1)), labels), max_items=450 if kept == 400 else 2000, max_each=8, least_items=400
    )
    counts = np.bincount(trials.identities)
    assert len(trials.identities) == kept and counts.max() - counts.min() <= 1 and len(counts) == identities
    fewer = Trials.of((np.zeros((len(labels), 1)), labels), max_items=150, max_each=8, least_items=400)
    assert len(fewer.identities) == 150


def test_trials_keep_at_most_max_items(x):
    trials = Trials.of((x, LABELS), max_items=20)
    assert len(trials.items) == 20 and len(np.unique(trials.identities)) == 10
    rows = [int(np.flatnonzero((x == item).all(axis=1))[0]) for item in trials.items]
    np.testing.assert_array_equal(LABELS[rows], trials.identities)


@pytest.mark.parametrize("similar_label", [1, 0])
def test_trials_of_pairs_keep_their_order_and_labels(x, similar_label):
    same = np.arange(15) % 3 == 0
    given = same if similar_label == 1 else ~same
    trials = Trials.of((x[:15], x[15:], given.astype("float32")[:, None]), similar_label=similar_label)
    np.testing.assert_array_equal(trials.same, same)
    np.testing.assert_array_equal(trials.items[trials.left], x[:15])
    np.testing.assert_array_equal(trials.items[trials.right], x[15:])
    assert trials.identities is None and trials.pair_identities == (None, None)


@pytest.mark.parametrize("similar_label", [1, 0])
def test_trials_of_a_frozen_sequence_are_its_pairs(x, similar_label):
    sequence = PairSequence(x, LABELS, batch_size=7, frozen=True, similar_label=similar_label, seed=3)
    trials = Trials.of(sequence)
    batches = [sequence[index] for index in range(len(sequence))]
    left, right = (np.concatenate([towers[side] for towers, _ in batches]) for side in (0, 1))
    np.testing.assert_array_equal(trials.items[trials.left], left)
    np.testing.assert_array_equal(trials.items[trials.right], right)
    labels = np.concatenate([same for _, same in batches])
    np.testing.assert_array_equal(trials.same, labels == similar_label)
    np.testing.assert_array_equal(trials.identities[trials.left] == trials.identities[trials.right], trials.same)


def test_trials_take_dicts(x):
    items = {"image": x, "size": x[:, :1]}
    labelled = Trials.of((items, LABELS), max_items=10)
    assert {key: len(array) for key, array in labelled.items.items()} == {"image": 10, "size": 10}
    half = {key: array[:15] for key, array in items.items()}
    paired = Trials.of((half, {key: array[15:] for key, array in items.items()}, np.arange(15) < 4))
    np.testing.assert_array_equal(paired.items["size"], items["size"])


def test_trials_do_not_change_and_are_not_copied(x):
    trials = Trials.of((x, LABELS))
    assert copy.deepcopy(trials) is trials and Trials.of(trials) is trials
    with pytest.raises(AttributeError):
        trials.same = None


ONE = np.ones(30, int)


@pytest.mark.parametrize(
    ("validation", "message"),
    [
        (lambda x: (x, ONE), "435 genuine and 0 impostor ones: they have 1 identities"),
        (lambda x: (x, np.arange(30)), "0 genuine and 435 impostor ones: they have 30 identities"),
        (lambda x: (x, LABELS[:-1]), "`validation labels` must have one entry for each of the 30 samples; got 29"),
        (lambda x: (x[:0], LABELS[:0]), "`validation x` must hold at least one sample"),
        (lambda x: (x * np.nan, LABELS), "`validation x` must be finite; 30 of its 30 samples"),
        (lambda x: (x, x[:, 0]), "`validation labels` must be whole numbers"),
        (lambda x: (x[:15], x[:14], ONE[:15]), r"must have the same shapes; got .*\(15, 4\).*\(14, 4\)"),
        (lambda x: (x[:15], x[:15, :2], ONE[:15]), "must have the same shapes"),
        (lambda x: (x[:15], x[15:], ONE[:14]), "`validation same` must have one entry for each of the 15 pairs"),
        (lambda x: (x[:15], x[15:], ONE[:15] * 2), "must hold only 1 .genuine. and 0 .impostor."),
        (lambda x: (x[:15], x[15:], ONE[:15]), "15 genuine and 0 impostor ones$"),
        (lambda x: (x[:0], x[:0], ONE[:0]), "`validation left` must hold at least one sample"),
        (lambda x: PairSequence(x, LABELS), "must be a frozen PairSequence"),
        (lambda x: x, r"must be \(x, labels\), .*; got a ndarray"),
        (lambda x: (x,), "got a tuple of 1"),
        (lambda x: None, "got a NoneType"),
    ],
)
def test_bad_validation_is_refused(x, validation, message):
    with pytest.raises(ValueError, match=message):
        Trials.of(validation(x))


def test_a_balanced_subset_has_as_many_of_each_kind(x):
    trials = Trials.of((x, LABELS))
    rows = trials.balanced()
    assert np.count_nonzero(trials.same[rows]) == 30 and len(rows) == len(set(rows.tolist())) == 60
    np.testing.assert_array_equal(rows, trials.balanced())
    few_impostors = Trials.of((x[:15], x[15:], np.arange(15) > 3))
    assert np.count_nonzero(few_impostors.same[few_impostors.balanced()]) == 4


@pytest.mark.parametrize("make", [lambda x: x, lambda x: {"a": x, "b": x * 2}, lambda x: x.astype(str)])
def test_an_item_of_several_pairs_is_kept_once(make):
    left, right = np.array([[1.0], [2.0], [1.0]]), np.array([[3.0], [1.0], [2.0]])
    trials = Trials.from_pairs(make(left), make(right), [1, 0, 0])
    found = trials.distinct()
    assert found.left.tolist() == [0, 1, 0] and found.right.tolist() == [2, 0, 1]
    assert found.rows.tolist() == [0, 1, 0]  # the pair in which each item comes first
    for one, other in ((found.left, trials.left), (found.right, trials.right)):
        for mine, its in zip(keras.tree.flatten(found.items), keras.tree.flatten(trials.items), strict=True):
            np.testing.assert_array_equal(mine[one], its[other])


@pytest.mark.parametrize(("genuine", "expected"), [(500, 10), (400, 10), (3, 3), (995, 15), (0, 0)])
def test_some_pairs_have_as_many_of_both_kinds_as_there_are(genuine, expected):
    same = np.random.default_rng(1).permutation(1000) < genuine
    rows = spread_over_kinds(same, 20, np.random.default_rng(0))
    assert len(rows) == 20 and (np.diff(rows) > 0).all() and np.count_nonzero(same[rows]) == expected
    assert np.array_equal(spread_over_kinds(same, 2000, np.random.default_rng(0)), np.arange(1000))
