"""Degenerate batches: the same answer of every batch loss, on every backend, in 32 and 16 bits; and what is refused.

Every class below `BatchLoss` is in every test by itself; a loss with a loop in `oracles.batch` is compared with it.
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import distances, losses
from keras_siamese._export import exported
from keras_siamese.losses.batch.base import Rows, as_batch
from keras_siamese.losses.batch.softmaxes import CosineLoss
from tests.oracles import batch as oracles
from tests.support.batches import REQUIRED, array, evaluate, make, per_row

pytestmark = pytest.mark.any_backend

NAMES = list(exported(losses.BatchLoss))
DTYPES = ("float32", "float16", "bfloat16")
every_loss = pytest.mark.parametrize("name", NAMES)
every_dtype = pytest.mark.parametrize("dtype", DTYPES)

# Batches of six embeddings in the plane and one axis more, representable in 16 bits.
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
    """The loop's values of the rows, or None for a loss without one."""
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
        # An anchor without variance makes the signal-to-noise ratio's distances as large as its floor lets them.
        if (case, name) == ("a zero vector", "SNRContrastiveLoss"):
            assert np.isfinite(values).all()
            assert dtype == "float16" or np.isfinite(grad).all()
            continue
        assert_loops(name, values, labels, embeddings)
        assert np.isfinite(grad).all(), case
        assert np.abs(grad).max() < 1e3, case


# Where a side is missing: what the losses on pairs make of the other is in the loops; the others cost nothing.
ONE_SIDED = {
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
    """`evaluate` raises where the gradient is not connected."""
    for case in ("as many identities as rows, so no positives", "one identity, so no negatives"):
        values, grad = evaluate(per_row(name), *batch_of(case), dtype)
        if name not in ONE_SIDED:
            np.testing.assert_allclose(values, np.zeros(6), atol=1e-6, err_msg=case)
            np.testing.assert_allclose(grad, np.zeros((6, 3)), atol=1e-6, err_msg=case)


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
    """Two of one identity and one of another: each anchor of the first has one of each."""
    labels, embeddings = [7, 7, 9], np.array([A, B, C], "float32")
    values = array(per_row(name)(np.array(labels), embeddings))
    assert_loops(name, values, labels, embeddings)


@pytest.mark.parametrize("index", [None, [4, 1, 5]])
def test_a_row_is_neither_its_own_positive_nor_its_own_negative(index):
    labels, embeddings = batch_of("two identical positives")
    batch = as_batch(ops.convert_to_tensor(labels.astype("int32")), ops.convert_to_tensor(embeddings))
    rows = Rows(batch, None if index is None else ops.convert_to_tensor(index, "int32"), lambda a, b: 0.0)
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
    """Of 1e-20 in 32 bits and in bfloat16; float16 has nothing below 6e-8, so it is of that."""
    labels, embeddings = batch_of("a zero vector")
    embeddings[1] = (6e-8 if dtype == "float16" else 1e-20) * np.array(B)
    values, grad = evaluate(per_row(name), labels, embeddings, dtype)
    assert np.isfinite(values).all()
    if name != "SNRContrastiveLoss":  # as above
        assert np.abs(grad).max() < 1e3


@every_dtype
@every_loss
def test_far_embeddings_do_not_overflow(name, dtype):
    """Distances of some 1e4: their exponentials overflow any float."""
    labels, embeddings = batch_of("an anchor without positives")
    values, grad = evaluate(per_row(name), labels, embeddings * 1e4, dtype)
    assert np.isfinite(values).all()
    assert np.isfinite(grad).all()


SOFT = {
    "triplets": (
        lambda: losses.BatchTripletLoss(soft=True),
        # What is below the smallest float is not above zero.
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
        # Only the farthest positive and the nearest negative weigh anything, by far.
        lambda b: [oracles.each((a, 0.5 * (max([0.0, *(b.d[a][p] - 0.8 for p in b.positives(a))]))) for a in b.rows)],
    ),
}


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


def test_ranked_lists_weights_do_not_overflow_near_zero():
    labels, embeddings = np.array([1, 1, 2]), np.array([A, B, A], "float32")
    value, grad = evaluate(losses.RankedListLoss(0.4, 500.0), labels, embeddings)
    # The negative at distance 0 outweighs all: 1.2 inside α, for the two rows that have it; half of that by λ.
    near = [0.5 * (oracles.euclidean(A, B) - 0.8), 0.5 * (oracles.euclidean(A, B) - 0.8), 0.0]
    far = [0.5 * 1.2, max(0.0, 0.5 * (1.2 - oracles.euclidean(A, B))), 0.5 * 1.2]
    assert value == pytest.approx((sum(near) + sum(far)) / 3, rel=1e-4)
    assert np.isfinite(grad).all()


# NaN


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


# Identities

LARGE = {
    "above 2¹¹": np.array([2049, 2049, 2048, 2048, 2050, 2050]),
    "above 2²⁴": np.array([16_777_217, 16_777_217, 16_777_216, 16_777_216, 16_777_218, 16_777_218]),
    "near 2³¹": np.array([2**31 - 1, 2**31 - 1, 2**31 - 2, 2**31 - 2, -(2**31), -(2**31)]),
    "beyond 2³²": np.array([7, 7, 7 + 2**32, 7 + 2**32, 7 + 2**33, 7 + 2**33]),
    "beyond 2⁶²": np.array([7, 7, 7 + 2**62, 7 + 2**62, -(2**63), -(2**63)]),
    "negative": np.array([-1, -1, -2, -2, 1, 1]),
    "unsigned": np.array([2**32 - 1, 2**32 - 1, 2**31, 2**31, 0, 0], "uint32"),
    "strings": np.array(["ada", "ada", "bo", "bo", "cy", "cy"]),
    "objects": np.array(["ada", "ada", "bo", "bo", "cy", "cy"], dtype=object),
    "whole floats": np.array([3.0, 3.0, -2.0, -2.0, 2049.0, 2049.0], "float32"),
    "a column": np.array([[3], [3], [4], [4], [5], [5]]),
    "a list": [3, 3, 4, 4, 5, 5],
    "booleans": None,
}


@pytest.mark.parametrize("dtype", [None, *DTYPES, "mixed_float16"])
@pytest.mark.parametrize("kind", LARGE)
def test_identities_are_compared_as_they_are(kind, dtype):
    _, embeddings = batch_of("opposite positives")
    plain, labels = np.array([1, 1, 2, 2, 3, 3]), LARGE[kind]
    if labels is None:
        plain, labels = np.array([1, 1, 0, 0, 0, 1]), np.array([True, True, False, False, False, True])
    loss, reference = losses.NCALoss(dtype=dtype), losses.NCALoss()
    value, expected = float(array(loss(labels, embeddings))), float(array(reference(plain, embeddings)))
    assert value == pytest.approx(expected, rel=1e-5 if dtype in (None, "float32") else 1e-2)
    assert expected > 0.1


TENSORS = {
    "int32": np.array([16_777_217, 16_777_217, 16_777_216, 16_777_216, -16_777_216, -16_777_216], "int32"),
    "int32, high bits": np.array([300, 300, 301, 301, 0, 0], "int32") << 16,
    "int32, neighbouring digits": np.array([255, 255, 256, 256, 65_280, 65_280], "int32"),
    "int64, high bits": np.array([300, 300, 301, 301, 0, 0], "int64") << 48,
    "uint8": np.array([255, 255, 0, 0, 127, 127], "uint8"),
    "uint32": np.array([2**32 - 1, 2**32 - 1, 2**31, 2**31, 0, 0], "uint32"),
    "float32": np.array([3.0, 3.0, -2.0, -2.0, 2049.0, 2049.0], "float32"),
    "int64": np.array([7, 7, 7 + 2**32, 7 + 2**32, -(2**62), -(2**62)], "int64"),
}


@pytest.mark.parametrize("dtype", [None, "float16", "bfloat16"])
@pytest.mark.parametrize("kind", TENSORS)
def test_identities_in_tensors_are_compared_as_they_are(kind, dtype):
    if keras.backend.backend() == "jax" and kind.startswith("int64"):
        pytest.skip("JAX has 32 bits unless told otherwise before it starts")
    _, embeddings = batch_of("opposite positives")
    tensor = ops.convert_to_tensor(TENSORS[kind], TENSORS[kind].dtype.name)
    value = float(array(losses.NCALoss(dtype=dtype)(tensor, embeddings)))
    expected = float(array(losses.NCALoss()(np.array([1, 1, 2, 2, 3, 3]), embeddings)))
    assert value == pytest.approx(expected, rel=1e-5 if dtype is None else 1e-2)


@every_loss
def test_large_identities_under_a_loss_in_16_bits(name):
    _, embeddings = batch_of("opposite positives")
    for dtype in ("float16", "bfloat16"):
        loss = make(name, dtype=dtype)
        values = [array(loss(labels, embeddings)) for labels in (LARGE["above 2²⁴"], np.array([1, 1, 2, 2, 3, 3]))]
        np.testing.assert_array_equal(*values)


@pytest.mark.parametrize("bad", [[1.0, 1.5, 2.0], [1.0, float("nan"), 2.0], [1.0, float("inf"), 2.0]])
@every_loss
def test_identities_that_are_no_whole_numbers_are_an_error(name, bad):
    embeddings = np.array([A, B, C], "float32")
    for labels in (np.array(bad), ops.convert_to_tensor(bad, "float32")):
        with pytest.raises(ValueError, match="`y_true` must be (whole numbers|finite)"):
            make(name)(labels, embeddings)


def test_identities_that_are_no_whole_numbers_make_a_compiled_loss_nan():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    compiled = keras.backend.backend() != "torch"
    model.compile("sgd", loss=losses.NCALoss(), jit_compile=compiled)
    if not compiled:
        with pytest.raises(ValueError, match="whole numbers"):
            model.evaluate(np.array([A, B, C, D]), np.array([1.0, 1.0, 2.5, 2.0]), verbose=0)
        return
    x = np.array([A, B, C, D], "float32")
    assert np.isfinite(model.evaluate(x, np.array([1.0, 1.0, 3.0, 2.0]), verbose=0))
    for wrong in (2.5, np.inf, np.nan):
        assert np.isnan(model.evaluate(x, np.array([1.0, 1.0, wrong, 2.0]), verbose=0)), wrong


# What is refused


@every_loss
def test_shapes_are_refused(name):
    loss, embeddings = make(name), np.array([A, B, C], "float32")
    with pytest.raises(ValueError, match=r"one identity for each embedding; got \(2,\) and \(3, 3\)"):
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


# Numbers that no loss of that option can work with.
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


def test_margins_beyond_a_distance_without_scale_are_refused():
    for cls in (losses.BatchTripletLoss, losses.BatchContrastiveLoss, losses.PNLoss, losses.BatchMarginLoss):
        for distance, bound in (("cosine", 2), ("angular", 1)):
            with pytest.raises(ValueError, match=rf"`(margin|beta)` must be at most {bound}, as .*; got "):
                cls(margin=bound + 0.25, distance=distance)
    for cls in (losses.TripletSemiHardLoss, losses.TripletHardLoss):
        with pytest.raises(ValueError, match="`margin` must be at most 2, as CosineDistance"):
            cls(margin=2.5, distance_metric="angular")
        assert cls(margin=2.5).margin == 2.5
    with pytest.raises(ValueError, match="`beta` must be at most 1"):
        losses.BatchMarginLoss(distance="angular")


def test_learned_and_unknown_distances_are_refused():
    for learned in ("mahalanobis", distances.WeightedManhattanDistance()):
        with pytest.raises(ValueError, match="`distance` must be a distance without weights"):
            losses.BatchTripletLoss(distance=learned)
    with pytest.raises(ValueError, match="`distance_metric` must be a distance without weights"):
        losses.TripletSemiHardLoss(distance_metric="mahalanobis")
    with pytest.raises(
        TypeError, match="TripletHardLoss takes the options margin, soft, distance_metric, .*; got distance"
    ):
        losses.TripletHardLoss(distance="cosine")
    with pytest.raises(ValueError, match="`distance` must be one of 'euclidean'"):
        losses.NCALoss(distance="euclid")
    with pytest.raises(ValueError, match="must be one of"):
        losses.TripletHardLoss(distance_metric="L3")


def test_mining_that_does_not_exist_is_refused():
    with pytest.raises(
        ValueError, match="`positives` must be one of 'all', 'hard', 'semi_hard', 'easy'; got 'semihard'"
    ):
        losses.BatchTripletLoss(positives="semihard")
    with pytest.raises(ValueError, match="`negatives` must be one of .*'distance_weighted'; got 'random'"):
        losses.BatchTripletLoss(negatives="random")
    with pytest.raises(ValueError, match="`positives` must be one of 'hard', 'easy'; got 'all'"):
        losses.PNLoss(positives="all")
    with pytest.raises(ValueError, match="`negatives` must be one of 'semi_hard', 'hard', 'easy'; got 'all'"):
        losses.PNLoss(negatives="all")
    for negatives in ("all", "semi_hard", "distance_weighted"):
        with pytest.raises(ValueError, match='`positives="semi_hard"` needs one negative'):
            losses.BatchTripletLoss(positives="semi_hard", negatives=negatives)
    with pytest.raises(ValueError, match="holds for the Euclidean distance"):
        losses.BatchTripletLoss(negatives="distance_weighted", distance="cosine")
