"""What the tests of single families of batch losses share: degenerate batches by name, and a loss against its loop.

A loop is `(labels, embeddings) → (values, counted)`, both by row, lists of floats; the batch's value is Σ values /
Σ counted, and a row's share of it is batch · value / Σ counted.

    assert_rows_are(loop, FastAPLoss(), labels, embeddings)
    assert_weighted_gradient_is(loop, FastAPLoss(), labels, embeddings, rng)
"""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese._export import exported
from keras_siamese.losses import BatchLoss
from tests.oracles import batch as oracles
from tests.oracles.batch import Batch
from tests.support.batches import FURTHER, array, evaluate, uneven
from tests.support.gradients import gradient, numerical_gradient

DTYPES = ("float32", "float16", "bfloat16")
QUICK_DTYPES = ("float32", *(pytest.param(name, marks=pytest.mark.deep) for name in DTYPES[1:]))

# Representable in 16 bits.
A, B, C, D = (1.0, 0.5, 0.0), (-0.5, 1.0, 0.25), (0.25, -0.75, 1.0), (0.5, 0.5, -1.0)


def times(factor, row):
    return tuple(factor * x for x in row)


DEGENERATE = {
    "duplicates of one identity": ([1, 1, 1, 2, 2, 3], (A, A, B, C, D, B)),
    "duplicates of two identities": ([1, 1, 2, 2, 3, 3], (A, B, A, C, D, C)),
    "all embeddings the same": ([1, 1, 2, 2, 3, 3], (A,) * 6),
    "zero vector": ([1, 1, 2, 2, 3, 3], (A, (0.0, 0.0, 0.0), B, C, D, times(-1.0, A))),
    "anchor without positive": ([1, 2, 2, 3, 3, 3], (A, B, C, D, times(-1.0, A), times(-0.5, B))),
    "no positives: all different": ([1, 2, 3, 4, 5, 6], (A, B, C, D, times(-1.0, A), times(-0.5, B))),
    "no negatives: all the same identity": ([4] * 6, (A, B, C, D, times(-1.0, A), times(-0.5, B))),
    "one positive and one negative pair": ([7, 7, 9], (A, B, C)),
    "batch of one": ([5], (A,)),
    "opposite clusters": ([1, 1, 1, 2, 2, 2], (A, A, A, *(times(-1.0, A),) * 3)),
    "collinear clusters": ([1, 1, 2, 2, 3, 3], [times(f, A) for f in (1.0, 2.0, 0.5, 0.25, -1.0, -2.0)]),
    "opposite positives": ([1, 1, 2, 2, 3, 3], (A, times(-1.0, A), B, times(-1.0, B), C, D)),
}


def degenerate(case):
    labels, embeddings = DEGENERATE[case]
    return np.array(labels), np.array(embeddings, "float32")


def shares(values, counted):
    return np.array(values) * len(values) / (sum(counted) or 1.0)


def per_row(loss):
    return type(loss).from_config({**loss.get_config(), "reduction": "none"})


def assert_rows_are(loop, loss, labels, embeddings, dtype="float32", tolerance=1e-4):
    """Each row's value, and that of the batch; the gradient is finite."""
    expected = shares(*loop(labels.tolist(), np.asarray(embeddings, "float64")))
    rows, grad = evaluate(per_row(loss), labels, embeddings, dtype)
    np.testing.assert_allclose(rows, expected, rtol=tolerance, atol=tolerance * max(1.0, np.abs(expected).max()))
    value = array(loss(labels, ops.convert_to_tensor(embeddings, dtype)))
    np.testing.assert_allclose(value, expected.mean(), rtol=tolerance, atol=tolerance)
    assert np.isfinite(grad).all()
    return rows, grad


def weighted_gradient(loss, labels, embeddings, weights):
    return gradient(lambda x: loss(labels, x, sample_weight=weights), embeddings)[0]


def assert_weighted_gradient_is(loop, loss, labels, embeddings, rng, tolerance=1e-3):
    """Value and gradient with a random weight on each row."""
    weights = rng.uniform(0.0, 2.0, size=len(labels)).astype("float32")

    def expected(x):
        return float(np.mean(weights * shares(*loop(labels.tolist(), x))))

    assert abs(array(loss(labels, embeddings, sample_weight=weights)) - expected(embeddings.astype("float64"))) < 1e-4
    (numeric,) = numerical_gradient(expected, embeddings)
    found = weighted_gradient(loss, labels, embeddings, weights)
    assert np.abs(numeric).max() > 1e-3, "a batch on which nothing moves shows nothing"
    np.testing.assert_allclose(found, numeric, rtol=0, atol=tolerance * np.abs(numeric).max())


def assert_blocks_change_nothing(loss, labels, embeddings, rng):
    """Value and weighted gradient for blocks of one row, of a size that leaves a rest, and larger than the batch."""
    weights = rng.uniform(0.0, 2.0, size=len(labels)).astype("float32")
    value = array(loss(labels, embeddings, sample_weight=weights))
    grad = weighted_gradient(loss, labels, embeddings, weights)
    for size in (1, 5, len(labels) + 3):
        blocks = type(loss).from_config({**loss.get_config(), "block_size": size})
        np.testing.assert_allclose(array(blocks(labels, embeddings, sample_weight=weights)), value, rtol=1e-5)
        found = weighted_gradient(blocks, labels, embeddings, weights)
        np.testing.assert_allclose(found, grad, rtol=0, atol=1e-5 * np.abs(grad).max())


def compiled(loss, y_true_rank=1, y_pred_dim=None):
    """`(y_true, y_pred) → (value, gradient)`, compiled with XLA for batches of unknown size; eager on PyTorch."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        import tensorflow as tf

        signature = [tf.TensorSpec([None] * y_true_rank, "int32"), tf.TensorSpec([None, y_pred_dim], "float32")]

        @tf.function(jit_compile=True, input_signature=signature)
        def value_and_gradient(y_true, y_pred):
            with tf.GradientTape() as tape:
                tape.watch(y_pred)
                value = loss(y_true, y_pred)
            return value, tape.gradient(value, y_pred)

        return lambda y_true, y_pred: value_and_gradient(y_true.astype("int32"), y_pred)
    if backend == "jax":
        import jax

        function = jax.jit(jax.value_and_grad(lambda y_pred, y_true: loss(y_true, y_pred)))
        return lambda y_true, y_pred: function(y_pred, y_true.astype("int32"))
    return lambda y_true, y_pred: (loss(y_true, y_pred), gradient(lambda x: loss(y_true, x), y_pred)[0])


def assert_compiles(loss, batches, **options):
    """The compiled value and gradient are the plain ones on each `(y_true, y_pred)` of `batches`, unlike in size."""
    function = compiled(loss, **options)
    for y_true, y_pred in batches:
        value, grad = function(y_true, y_pred)
        np.testing.assert_allclose(array(value), array(loss(y_true, y_pred)), rtol=1e-5, atol=1e-6)
        plain = gradient(lambda x, y_true=y_true: loss(y_true, x), y_pred)[0]
        np.testing.assert_allclose(array(grad), plain, rtol=0, atol=1e-5 * max(np.abs(plain).max(), 1e-3))


def assert_nan_shows(loss, labels, embeddings, dtype):
    """A NaN in an embedding makes the row's value and the batch's NaN."""
    spoilt = np.array(embeddings)
    spoilt[1, 0] = np.nan
    tensor = ops.convert_to_tensor(spoilt, dtype)
    assert np.isnan(array(per_row(loss)(labels, tensor))[1])
    assert np.isnan(array(loss(labels, tensor)))


class Case:
    """A loss, the loop it should equal on distances or similarities `measure`, and the mistake the loop must reject.

    `held`: the loop takes what the gradient does not move as `fixed`. `unit`: embeddings of norm 1.
    """

    def __init__(self, loss, loop, wrong, measure=oracles.euclidean, held=False, unit=False):
        self.loss, self.loop, self.wrong, self.measure, self.held, self.unit = loss, loop, wrong, measure, held, unit

    def sides(self, labels, embeddings, fixed=None):
        options = {"fixed": Batch(labels, embeddings if fixed is None else fixed, self.measure)} if self.held else {}
        return self.loop(Batch(labels, embeddings, self.measure), **options)


def itself(loop):
    """The loop with a row as its own positive; `batch` is made again."""
    return lambda batch, **options: loop(Batch(batch.labels, batch.x, batch.measure, itself=True), **options)


def option(loop, **options):
    return lambda batch, **others: loop(batch, **options, **others)


# Rows an identity in batches of 11, singletons among them; rows of an identity overlap with others'.
SIZES = ((4, 1, 3, 2, 1), (7, 1, 2, 1))


def draw(case, rng, sizes, dim=4):
    labels, embeddings = uneven(rng, sizes, dim)
    return labels, embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True) if case.unit else embeddings


def for_each_case(cases):
    """Runs a test for each case: on each backend for the first case of each loss."""
    names = {type(make().loss): name for name, make in reversed(cases.items())}.values()
    marks = {name: pytest.mark.each_backend if name in names else FURTHER for name in cases}
    return pytest.mark.parametrize("name", [pytest.param(name, marks=marks[name]) for name in cases])


def assert_case(case, rng, sizes):
    """Each row's value and the gradient are those of the case's loop."""
    labels, embeddings = draw(case, rng, sizes)
    values, grad = evaluate(per_row(case.loss), labels, embeddings)
    sides = case.sides(labels, embeddings)
    expected = oracles.shares(sides, len(labels))
    np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-4 * max(1e-2, *map(abs, expected)))
    assert np.mean(values) == pytest.approx(oracles.total(sides), rel=1e-4)
    slopes = numerical_gradient(lambda x: oracles.total(case.sides(labels, x, embeddings)), embeddings)[0]
    np.testing.assert_allclose(grad, slopes, rtol=0, atol=1e-3 * max(1e-2, np.abs(slopes).max()))


def assert_loop_rejects_the_mistake(case, rng):
    right, wrong = [], []
    for sizes in SIZES:
        labels, embeddings = draw(case, rng, sizes)
        right.append(oracles.total(case.sides(labels, embeddings)))
        wrong.append(oracles.total(case.wrong(Batch(labels, embeddings, case.measure))))
    assert not np.allclose(right, wrong, rtol=1e-2), (right, wrong)


def assert_has_a_case_for_each_loss(cases, module):
    """`cases` hold each batch loss that the `module` defines."""
    written = {name for name, cls in exported(BatchLoss).items() if cls.__module__ == module.__name__}
    assert written == {type(make().loss).__name__ for make in cases.values()}
