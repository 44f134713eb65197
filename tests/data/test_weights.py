"""Class and sample weights of labels, identities and pairs, against scikit-learn and counting loops."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.utils.class_weight import compute_class_weight, compute_sample_weight

from keras_siamese.data import PairSequence, pair_class_weights, sample_weights
from keras_siamese.data.weights import pair_sample_weights
from keras_siamese.losses import WeightedBinaryCrossentropy

NAMES = np.array(["ada", "bo", "cy", "di"])
UNEVEN = NAMES[[2, 0, 3, 1, 3, 2, 3, 0, 3, 2, 3]]  # ada 2, bo 1, cy 3, di 5
SAME = np.array([True, False, False, True, False, False, False])
LEFT, RIGHT = np.array([0, 0, 1, 3, 4, 0, 1]), np.array([0, 1, 2, 3, 0, 4, 0])


def pairs_by_loop(same, left, right, kind):
    """The weights by their definition, counting one by one."""
    weights = []
    for i in range(len(same)):
        if kind == "balanced":
            kinds = {bool(value) for value in same}
            alike = sum(1 for value in same if value == same[i])
            weights.append(len(same) / (len(kinds) * alike))
        else:
            sides = [*left.tolist(), *right.tolist()]
            each = [len(sides) / (len(set(sides)) * sides.count(identity)) for identity in (left[i], right[i])]
            weights.append(sum(each) / 2)
    return np.array(weights)


def test_class_weights_are_those_of_scikit_learn():
    weights = pair_class_weights(SAME)
    expected = compute_class_weight("balanced", classes=np.array([False, True]), y=SAME)
    assert weights == {0: pytest.approx(expected[0]), 1: pytest.approx(expected[1])}
    assert weights == {0: pytest.approx(7 / (2 * 5)), 1: pytest.approx(7 / (2 * 2))}
    assert [type(value) for pair in weights.items() for value in pair] == [int, float, int, float]


@pytest.mark.parametrize("dtype", [bool, int, "float32", "uint8"])
def test_class_weights_of_any_dtype_and_column(dtype):
    assert pair_class_weights(SAME.astype(dtype)[:, None]) == pair_class_weights(SAME)


def test_class_weights_follow_the_labels_a_batch_holds():
    """With similar_label=0 the labels of batches are swapped, and so are the weights."""
    sequences = [
        PairSequence(
            np.arange(11.0), UNEVEN, positive_fraction=0.25, batch_size=40, pairs_per_epoch=40, similar_label=k
        )
        for k in (1, 0)
    ]
    one, zero = (pair_class_weights(sequence[0][1]) for sequence in sequences)
    assert one == {0: pytest.approx(40 / 60), 1: pytest.approx(2.0)}
    assert zero == {0: one[1], 1: one[0]}


@pytest.mark.each_backend
def test_class_weights_serve_the_loss():
    loss = WeightedBinaryCrossentropy(class_weight=pair_class_weights(SAME))
    probability = np.array([0.9, 0.2, 0.4, 0.3, 0.1, 0.6, 0.5], "float32")
    entropy = [-np.log(p if same else 1 - p) for same, p in zip(SAME, probability, strict=True)]
    weights = [7 / 4 if same else 7 / 10 for same in SAME]
    value = float(loss(SAME.astype("float32")[:, None], probability[:, None]))
    assert value == pytest.approx(np.dot(weights, entropy) / np.sum(weights), rel=1e-5)


@pytest.mark.parametrize("same", [[1, 1, 1], [0, 0], []])
def test_class_weights_need_both_labels(same):
    with pytest.raises(ValueError, match="`same` must hold both labels"):
        pair_class_weights(same)


def test_class_weights_refuse_other_labels():
    with pytest.raises(ValueError, match="`same` must hold only 1 .* got also"):
        pair_class_weights([0, 1, 2])


def test_sample_weights_are_those_of_scikit_learn():
    weights = sample_weights(UNEVEN)
    np.testing.assert_allclose(weights, compute_sample_weight("balanced", UNEVEN), rtol=1e-6)
    np.testing.assert_allclose(weights, [len(UNEVEN) / (4 * UNEVEN.tolist().count(name)) for name in UNEVEN], rtol=1e-6)
    assert weights.dtype == np.float32


def test_sample_weights_of_integers_far_apart():
    np.testing.assert_array_equal(sample_weights([-5, 70_001, 70_001]), np.float32([1.5, 0.75, 0.75]))


@pytest.mark.parametrize("function", [sample_weights, lambda none: pair_sample_weights(none, none, none, "balanced")])
def test_nothing_cannot_be_weighed(function):
    with pytest.raises(ValueError, match="at least one entry"):
        function(np.empty(0, dtype=int))


@pytest.mark.parametrize("kind", ["balanced", "identities"])
def test_pair_weights_against_the_loop(kind):
    weights = pair_sample_weights(SAME, LEFT, RIGHT, kind)
    expected = pairs_by_loop(SAME, LEFT, RIGHT, kind)
    np.testing.assert_allclose(weights, expected, rtol=1e-6)
    assert weights.dtype == np.float32
    # The loop rejects the other kind, and counts on one side only.
    other = pairs_by_loop(SAME, LEFT, RIGHT, "identities" if kind == "balanced" else "balanced")
    assert not np.allclose(weights, other)
    assert kind == "balanced" or not np.allclose(weights, compute_sample_weight("balanced", LEFT))


def test_one_kind_of_pairs_has_equal_weights():
    np.testing.assert_array_equal(pair_sample_weights(SAME[:1].repeat(4), LEFT[:4], RIGHT[:4], "balanced"), np.ones(4))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=40))
def test_pair_weights_balance_what_they_say(pairs):
    same, left, right = (np.array(column) for column in zip(*pairs, strict=True))
    balanced = pair_sample_weights(same, left, right, "balanced")
    assert balanced.mean() == pytest.approx(1, rel=1e-5)
    sums = [balanced[same == kind].sum() for kind in np.unique(same)]
    np.testing.assert_allclose(sums, len(same) / len(sums), rtol=1e-5)

    identities = pair_sample_weights(same, left, right, "identities")
    np.testing.assert_allclose(identities, pairs_by_loop(same, left, right, "identities"), rtol=1e-5)
    assert identities.mean() == pytest.approx(1, rel=1e-5)


def test_unknown_kind_and_uneven_lengths():
    with pytest.raises(ValueError, match="`kind` must be one of 'balanced', 'identities'; got 'classes'"):
        pair_sample_weights(SAME, LEFT, RIGHT, "classes")
    with pytest.raises(ValueError, match="`right_codes` must have one entry for each of the 7 samples; got 6"):
        pair_sample_weights(SAME, LEFT, RIGHT[:6], "identities")


@pytest.mark.parametrize("kind", ["balanced", "identities"])
def test_batches_of_a_sequence_have_the_weights_of_their_epoch(kind):
    sequence = PairSequence(
        np.arange(11), UNEVEN, batch_size=4, pairs_per_epoch=30, positive_fraction=0.2, sample_weight=kind
    )
    for epoch in (0, 2):
        sequence.set_epoch(epoch)
        left, right, same, weight = (
            np.concatenate(column) for column in zip(*((*pair, y, w) for pair, y, w in sequence), strict=True)
        )
        expected = pairs_by_loop(same, sequence.labels[left], sequence.labels[right], kind)
        np.testing.assert_allclose(weight, expected, rtol=1e-6)
