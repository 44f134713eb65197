"""Degenerate batches: each batch loss gives the same value on each backend, in 32 and 16 bits; and refused inputs.

Every test covers all subclasses of `BatchLoss`; a loss with a loop in `oracles.batch` is compared with it.
"""

import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese._export import exported
from keras_siamese.losses.batch import base
from keras_siamese.losses.batch.softmaxes import CosineLoss
from tests.oracles import batch as oracles
from tests.support.batch_checks import QUICK_DTYPES
from tests.support.batches import REQUIRED, array, deep_elsewhere, evaluate, for_each_loss, make, per_row

NAMES = list(exported(losses.BatchLoss))


every_loss = for_each_loss(NAMES)


every_dtype = pytest.mark.parametrize("dtype", QUICK_DTYPES)


# Batches of six embeddings with three coordinates, exact in 16 bits.
A, B, C, D = (1.0, 0.5, 0.0), (-0.5, 1.0, 0.25), (0.25, -0.75, 1.0), (0.5, 0.25, -1.0)


def opposite(a, factor=-1.0):
    return tuple(factor * x for x in a)


BATCHES = {
    "two identical positives": ([1, 1, 1, 2, 2, 3], (A, A, B, C, D, B)),
    "two identical negatives": ([1, 1, 2, 2, 3, 3], (A, B, A, C, D, C)),
    "all embeddings identical": ([1, 1, 1, 2, 2, 3], (A,) * 6),
    "an anchor without positives": ([1, 2, 2, 3, 3, 3], (A, B, C, D, opposite(A), opposite(B, 0.75))),
    "one identity, so no negatives": ([4] * 6, (A, B, C, D, opposite(A), opposite(B, 0.75))),
    "as many identities as rows, so no positives": ([1, 2, 3, 4, 5, 6], (A, B, C, D, opposite(A), opposite(B, 0.75))),
    "an identity of one embedding": ([1, 1, 1, 2, 2, 2], (A, A, A, B, C, D)),
    "opposite positives": ([1, 1, 2, 2, 3, 3], (A, opposite(A), B, opposite(B), C, D)),
    "opposite clusters": ([1, 1, 1, 2, 2, 2], (A, A, A, *(opposite(A),) * 3)),
    "collinear clusters": ([1, 1, 2, 2, 3, 3], [opposite(A, f) for f in (1.0, 2.0, 0.5, 0.25, -1.0, -2.0)]),
    "a zero vector": ([1, 1, 2, 2, 3, 3], (A, (0.0, 0.0, 0.0), B, C, D, opposite(B, 0.75))),
}


def batch_of(case):
    labels, embeddings = BATCHES[case]
    return np.array(labels), np.array(embeddings, "float32")


def expected(name, labels, embeddings):
    """The rows' values from the loop, or None for a loss without a loop."""
    if name not in oracles.DEFAULTS:
        return None
    loop, measure = oracles.DEFAULTS[name]
    return oracles.shares(loop(oracles.Batch(labels, embeddings, measure), **REQUIRED.get(name, {})), len(labels))


def assert_loops(name, values, labels, embeddings):
    assert values.shape == (len(labels),)
    assert np.isfinite(values).all(), values
    loop = expected(name, labels, embeddings)
    if loop is not None:
        np.testing.assert_allclose(values, loop, rtol=1e-3, atol=1e-3 * max(1.0, *map(abs, loop)))


@every_dtype
@every_loss
def test_degenerate_batches_have_the_loops_values_and_finite_gradients(name, dtype):
    for case in BATCHES:
        labels, embeddings = batch_of(case)
        values, grad = evaluate(per_row(name), labels, embeddings, dtype)
        if (case, name) == ("a zero vector", "SNRContrastiveLoss"):  # an anchor without variance has a huge distance
            assert np.isfinite(values).all()
            assert np.abs(grad).max() < 1e4
            continue
        assert_loops(name, values, labels, embeddings)
        assert np.isfinite(grad).all(), case
        assert np.abs(grad).max() < 1e3, case


# Batches without positive or without negative pairs: losses on pairs follow the loops, all others are 0.
ONE_SIDED = {
    "SigLIPLoss",
    "BatchContrastiveLoss",
    "SNRContrastiveLoss",
    "MultiSimilarityLoss",
    "ThresholdConsistentMarginLoss",
    "IntraPairVarianceLoss",
    "RankedListLoss",
}


@every_dtype
@every_loss
def test_without_a_valid_pair_or_triplet_value_and_gradient_are_zero(name, dtype):
    """`evaluate` raises if the loss does not depend on the embeddings."""
    for case in ("as many identities as rows, so no positives", "one identity, so no negatives"):
        values, grad = evaluate(per_row(name), *batch_of(case), dtype)
        if name not in ONE_SIDED:
            np.testing.assert_allclose(values, np.zeros(6), atol=1e-6, err_msg=case)
            np.testing.assert_allclose(grad, np.zeros((6, 3)), atol=1e-6, err_msg=case)


@deep_elsewhere
def test_losses_on_one_side_have_a_value_on_it():
    for name in ONE_SIDED:
        cases = ("as many identities as rows, so no positives", "one identity, so no negatives")
        assert max(np.abs(evaluate(per_row(name), *batch_of(case))[0]).max() for case in cases) > 1e-3, name


@every_dtype
@every_loss
def test_batch_of_one_is_zero(name, dtype):
    values, grad = evaluate(per_row(name), [5], np.array([A], "float32"), dtype)
    assert values.tolist() == [0.0]
    assert grad.tolist() == [[0.0, 0.0, 0.0]]


@every_loss
def test_exactly_one_positive_and_one_negative_pair_is_the_true_loss(name):
    """Two rows of one identity, one of another: each anchor of the first has one positive and one negative."""
    labels, embeddings = [7, 7, 9], np.array([A, B, C], "float32")
    values = array(per_row(name)(np.array(labels), embeddings))
    assert_loops(name, values, labels, embeddings)


@pytest.mark.each_backend
@pytest.mark.parametrize("index", [None, [4, 1, 5]])
def test_a_row_is_neither_its_own_positive_nor_its_own_negative(index):
    labels, embeddings = batch_of("two identical positives")
    batch = base.Batch(ops.convert_to_tensor(labels.astype("int32")), ops.convert_to_tensor(embeddings))
    rows = base.Rows(batch, None if index is None else ops.convert_to_tensor(index, "int32"), lambda a, b: 0.0)
    for position, row in enumerate(range(6) if index is None else index):
        positive, negative = array(rows.positive)[position], array(rows.negative)[position]
        assert positive.tolist() == [float(labels[j] == labels[row] and j != row) for j in range(6)]
        assert negative.tolist() == [float(labels[j] != labels[row]) for j in range(6)]


@pytest.mark.parametrize("dim", [2, 64, 512])
@every_loss
def test_the_distance_of_identical_embeddings_is_exactly_zero(name, dim, rng):
    loss = make(name)
    if isinstance(loss, CosineLoss) or loss.distance.scale_free:
        return  # a cosine of 1 is subject to rounding
    embeddings = rng.normal(size=(8, dim)).astype("float32")[[0, 1, 2, 0, 4, 1, 6, 0]]
    found = array(loss.measure(*(ops.convert_to_tensor(embeddings),) * 2))
    same = (embeddings[:, None] == embeddings).all(-1)
    assert (found[same] == 0).all()
    assert (found[~same] > 0).all()


@every_dtype
@every_loss
def test_a_tiny_vector_has_a_bounded_gradient(name, dtype):
    """Its size is 1e-20 in float32 and bfloat16, and 6e-8 in float16, which has no smaller number."""
    labels, embeddings = batch_of("a zero vector")
    embeddings[1] = (6e-8 if dtype == "float16" else 1e-20) * np.array(B)
    values, grad = evaluate(per_row(name), labels, embeddings, dtype)
    assert np.isfinite(values).all()
    assert np.abs(grad).max() < (1e4 if name == "SNRContrastiveLoss" else 1e3)


@every_dtype
@every_loss
def test_far_embeddings_do_not_overflow(name, dtype):
    """The exponentials of distances of about 1e4 overflow every float."""
    labels, embeddings = batch_of("an anchor without positives")
    values, grad = evaluate(per_row(name), labels, embeddings * 1e4, dtype)
    assert np.isfinite(values).all()
    assert np.isfinite(grad).all()


SOFT = {
    "triplets": (
        lambda: losses.BatchTripletLoss(soft=True),
        # A value below the smallest float is 0, so it is not above zero.
        lambda b: [[(a, v, float(v > 1e-40)) for a, v, _ in oracles.triplets(b, soft=True)[0]]],
    ),
    "hard triplets": (
        lambda: losses.BatchTripletLoss(positives="hard", negatives="hard", soft=True),
        lambda b: oracles.mined(b, "hard", "hard", soft=True),
    ),
    "TripletHardLoss": (lambda: losses.TripletHardLoss(soft=True), lambda b: oracles.hard(b, soft=True)),
    "PNLoss": (lambda: losses.PNLoss(distance="euclidean"), oracles.pn),
    "RankedListLoss": (
        lambda: losses.RankedListLoss(0.4, 500.0, 3.0),
        # The farthest positive and the nearest negative have almost all the weight.
        lambda b: [oracles.each((a, 0.5 * (max([0.0, *(b.d[a][p] - 0.8 for p in b.positives(a))]))) for a in b.rows)],
    ),
}


@deep_elsewhere
@pytest.mark.parametrize("name", SOFT)
def test_soft_margins_at_huge_differences(name):
    make_loss, loop = SOFT[name]
    labels = np.array([1, 1, 2, 2, 3, 1])
    embeddings = 1e4 * np.array([A, B, C, D, opposite(A), opposite(B, 3.0)], "float32")
    values, grad = evaluate(
        type(make_loss()).from_config({**make_loss().get_config(), "reduction": "none"}), labels, embeddings
    )
    np.testing.assert_allclose(values, oracles.shares(loop(oracles.Batch(labels, embeddings)), 6), rtol=1e-4, atol=1e-2)
    assert np.isfinite(grad).all()


@every_dtype
@every_loss
def test_a_nan_embedding_makes_its_row_and_the_batch_nan(name, dtype):
    labels, embeddings = batch_of("an anchor without positives")
    for row in (0, 3):  # a singleton, and one of three
        embeddings[row, 1] = np.nan
        values, _ = evaluate(per_row(name), labels, embeddings, dtype)
        assert np.isnan(values[row])
        assert np.isnan(array(make(name)(labels, ops.convert_to_tensor(embeddings, dtype))))
        embeddings = batch_of("an anchor without positives")[1]


@every_loss
def test_shapes_are_refused(name):
    loss, embeddings = make(name), np.array([A, B, C], "float32")
    with pytest.raises(ValueError, match=r"one identity for each embedding in `y_pred`; got \(2,\) and \(3, 3\)"):
        loss(np.array([1, 2]), embeddings)
    for wrong in (embeddings[0], embeddings[None]):
        with pytest.raises(ValueError, match=r"`y_pred` must be embeddings of shape \(batch, dim\); got \("):
            loss(np.array([1, 2, 2]), wrong)
    with pytest.raises(ValueError, match=r"not one-hot; got \(3, 2\)"):
        loss(np.array([[1, 0], [0, 1], [0, 1]]), embeddings)
    with pytest.raises(ValueError, match=r"not one-hot; got \(\)"):
        loss(np.array(3), embeddings)


@every_loss
def test_unknown_options_and_reductions_are_refused(name):
    with pytest.raises(TypeError, match=rf"{name} takes the options .*block_size.*reduction.*; got marign"):
        make(name, marign=0.5)
    with pytest.raises(ValueError, match="reduction"):
        make(name, reduction="avg")
    for wrong, error in ((0, ValueError), (2.5, TypeError), (True, TypeError)):
        with pytest.raises(error, match="`block_size` must be"):
            make(name, block_size=wrong)


# For each option, values that every loss must refuse.
WRONG_NUMBERS = {
    "margin": (-0.5, float("nan"), "wide"),
    "temperature": (0.0, -1.0, float("inf")),
    "negative_temperature": (-1.0,),
    "positive_temperature": (-1.0,),
    "scale": (0.0, -1.0),
    "alpha": (0.0, -1.0),
    "beta": (0.0, -1.0),
    "epsilon": (-0.1,),
    "base": (-1.5, 1.5),
    "imbalance": (-0.1, 1.1),
    "positive_margin": (-2.0, float("nan")),
    "negative_margin": (-2.0, float("nan")),
    "positive_weight": (-1.0,),
    "negative_weight": (-1.0,),
    "positive_epsilon": (-0.1, 1.1),
    "negative_epsilon": (-0.1, 1.1),
}


@pytest.mark.parametrize("option", WRONG_NUMBERS)
def test_numbers_out_of_range_are_refused(option):
    taken = [name for name in NAMES if hasattr(make(name), option)]
    assert taken
    for name in taken:
        for wrong in WRONG_NUMBERS[option]:
            with pytest.raises((ValueError, TypeError), match=f"`{option}` must be"):
                exported()[name](**{**REQUIRED.get(name, {}), option: wrong})
