"""The angular loss against pytorch-metric-learning and a loop; row weights affect both rows of a pair."""

import numpy as np
import pytest

from keras_siamese.losses import AngularLoss
from tests.oracles.angular import angular, wrong_angular
from tests.support.batch_checks import (
    DEGENERATE,
    QUICK_DTYPES,
    assert_blocks_change_nothing,
    assert_compiles,
    assert_nan_shows,
    assert_rows_are,
    assert_weighted_gradient_is,
    degenerate,
    weighted_gradient,
)
from tests.support.batches import SIZES, deep_elsewhere, evaluate, uneven

torch = pytest.importorskip("torch")
peer = pytest.importorskip("pytorch_metric_learning.losses")

every_dtype = pytest.mark.parametrize("dtype", QUICK_DTYPES)


def loop(angle=40.0):
    return lambda labels, embeddings: angular(labels, embeddings, angle)


@deep_elsewhere
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("angle", [40.0, 55.0])
def test_is_pytorch_metric_learnings_of_unit_vectors(angle, sizes, rng):
    labels, embeddings = uneven(rng, sizes)
    tensor = torch.tensor(embeddings.astype("float64"), requires_grad=True)
    value = peer.AngularLoss(angle)(torch.nn.functional.normalize(tensor), torch.tensor(labels))
    value.backward()
    found = evaluate(AngularLoss(angle), labels, embeddings)
    assert found[0] == pytest.approx(value.item(), rel=1e-5)
    grad = tensor.grad.numpy()
    np.testing.assert_allclose(found[1], grad, rtol=0, atol=1e-4 * np.abs(grad).max())


@deep_elsewhere
@pytest.mark.parametrize("angle", [1.0, 40.0, 80.0])
@pytest.mark.parametrize("sizes", SIZES)
def test_rows_are_the_loops(sizes, angle, rng):
    """At 80° an exponent is up to 257: its exponential overflows float32."""
    assert_rows_are(loop(angle), AngularLoss(angle), *uneven(rng, sizes))


@pytest.mark.each_backend
@pytest.mark.parametrize("angle", [40.0, pytest.param(60.0, marks=pytest.mark.deep)])
@pytest.mark.parametrize("block_size", [None, 4])
def test_gradient_with_sample_weights_is_the_loops(block_size, angle, rng):
    labels, embeddings = uneven(rng, (4, 1, 3, 2), dim=3)
    assert_weighted_gradient_is(loop(angle), AngularLoss(angle, block_size=block_size), labels, embeddings, rng)


def test_weight_of_one_row_moves_the_partners_too(rng):
    """The weight of a row must also affect the gradients of the rows that it is paired with."""
    labels, embeddings = uneven(rng, (3, 3, 2))
    weights = np.eye(8, dtype="float32")[2]
    grad = weighted_gradient(AngularLoss(), labels, embeddings, weights)
    assert (np.abs(grad) > 1e-4).any(axis=1)[labels == labels[2]].all()


def test_oracle_rejects_the_wrong_variant(rng):
    labels, embeddings = uneven(rng)
    (right, counted), (wrong, _) = angular(labels, embeddings), wrong_angular(labels, embeddings)
    assert abs(sum(right) - sum(wrong)) / sum(counted) > 0.1


@deep_elsewhere
def test_blocks_change_nothing(rng):
    for sizes in SIZES:
        assert_blocks_change_nothing(AngularLoss(), *uneven(rng, sizes), rng)


@pytest.mark.deep
@pytest.mark.parametrize("block_size", [None, 3])
def test_compiled_for_any_batch_size(block_size, rng):
    batches = [uneven(rng, (4, 1, 3)), uneven(rng, (2, 5, 3, 1))]
    if block_size is not None:
        batches = batches[:1]
    assert_compiles(AngularLoss(block_size=block_size), batches, y_pred_dim=6)


# Edge cases


@deep_elsewhere
@every_dtype
@pytest.mark.parametrize("case", DEGENERATE)
def test_degenerate_batch(case, dtype):
    _, grad = assert_rows_are(loop(), AngularLoss(), *degenerate(case), dtype, tolerance=1e-3)
    assert np.abs(grad).max() < 1e3


@deep_elsewhere
@every_dtype
@pytest.mark.parametrize("case", ["no positives: all different", "no negatives: all the same identity", "batch of one"])
def test_no_pair_to_compare_is_zero(case, dtype):
    values, grad = evaluate(AngularLoss(reduction="none"), *degenerate(case), dtype)
    assert not values.any()
    assert not grad.any()


@deep_elsewhere
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_tiny_vector_is_one_without_direction(dtype):
    labels, embeddings = degenerate("zero vector")
    loss = AngularLoss(reduction="none")
    expected = evaluate(loss, labels, embeddings, dtype)
    embeddings[1] = 1e-20
    for one, other in zip(evaluate(loss, labels, embeddings, dtype), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@deep_elsewhere
@every_dtype
def test_nan_shows(dtype, rng):
    assert_nan_shows(AngularLoss(), *uneven(rng), dtype)


@pytest.mark.parametrize("angle", [0.0, 90.0, -5.0, float("nan")])
def test_angle_is_checked(angle):
    with pytest.raises(ValueError, match="`angle` must be in \\(0, 90\\)"):
        AngularLoss(angle)
