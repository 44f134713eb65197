"""Proxy losses on neighbours against pytorch-metric-learning and loops: values, gradients and the shares of rows."""

import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from tests.oracles import proxies as oracles
from tests.support.gradients import gradient, numerical_gradient
from tests.support.proxy_batches import (
    CLASSES,
    COSINES,
    LABELS,
    ROWS,
    arrays,
    assert_is_pytorch_metric_learnings,
    marked,
    theirs,
    through_layer,
    value,
)


def same(options):
    return options


# The class, its centers per class, its options, the peer's class, and the peer's names of the options.
CASES = [
    ("ProxyNCALoss", 1, {"scale": 1}, lambda o: {"softmax_scale": o["scale"]}),
    ("ProxyNCALoss", 1, {"scale": 9}, lambda o: {"softmax_scale": o["scale"]}),
    ("ProxyAnchorLoss", 1, {"margin": 0.1, "scale": 32}, lambda o: {"margin": o["margin"], "alpha": o["scale"]}),
    ("ProxyAnchorLoss", 1, {"margin": 0.4, "scale": 2}, lambda o: {"margin": o["margin"], "alpha": o["scale"]}),
    (
        "SoftTripleLoss",
        10,
        {"scale": 20, "gamma": 0.1, "margin": 0.01},
        lambda o: {"la": o["scale"], "gamma": o["gamma"], "margin": o["margin"], "centers_per_class": 10},
    ),
    (
        "SoftTripleLoss",
        2,
        {"scale": 3, "gamma": 0.7, "margin": 0.5},
        lambda o: {"la": o["scale"], "gamma": o["gamma"], "margin": o["margin"], "centers_per_class": 2},
    ),
]


MARKED = [marked(CASES, i) for i in range(len(CASES))]


@pytest.mark.parametrize(("name", "centers", "options", "names"), MARKED)
@pytest.mark.deep_on("jax")
def test_value_and_gradients_are_those_of_pytorch_metric_learning(name, centers, options, names):
    assert_is_pytorch_metric_learnings(name, centers, options, names(options))


def test_soft_triple_with_merging_centers():
    embeddings, weights = arrays(3)
    regularizers = pytest.importorskip("pytorch_metric_learning.regularizers")
    regularizer = (regularizers.SparseCentersRegularizer(CLASSES, 3), 0.2)
    expected = theirs("SoftTripleLoss", {"centers_per_class": 3}, embeddings, weights, regularizer)
    alone = theirs("SoftTripleLoss", {"centers_per_class": 3}, embeddings, weights)
    ours = through_layer(losses.SoftTripleLoss(), 3, center_sparsity=0.2)
    assert abs(expected[0] - alone[0]) > 0.01
    assert float(ops.convert_to_numpy(ours(embeddings, weights))) == pytest.approx(expected[0], rel=1e-5)
    for got, right in zip(gradient(ours, embeddings, weights), expected[1:], strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-5)


def test_centers_that_meet_do_not_make_nan():
    embeddings, weights = arrays(3)
    weights[1::3], weights[2] = 2 * weights[::3], -weights[0]
    ours = through_layer(losses.SoftTripleLoss(), 3, center_sparsity=0.2)
    (slope,) = gradient(lambda w: ours(embeddings, w), weights)
    assert np.all(np.isfinite(slope))
    assert np.max(np.abs(slope)) < 1e3


def test_proxy_anchor_shares_its_logarithms_out_to_rows():
    rows, classes = COSINES.tolist(), LABELS.tolist()
    expected = oracles.proxy_anchor(rows, classes, scale=8.0)
    wrong = oracles.wrong_proxy_anchor(rows, classes, scale=8.0)
    assert not np.isclose(np.mean(expected), np.mean(wrong), rtol=0.02)
    np.testing.assert_allclose(value(losses.ProxyAnchorLoss(scale=8, reduction="none")), expected, rtol=1e-4)
    weight = np.linspace(0.0, 2.0, ROWS)
    got = value(losses.ProxyAnchorLoss(scale=8), sample_weight=weight)
    assert got == pytest.approx(np.mean(weight * expected), rel=1e-5)


def test_proxy_anchor_gradient_is_that_of_the_whole():
    """The rows' shares have no gradient, but the gradient of their mean must be complete."""

    def loop(y_pred):
        return float(np.mean(oracles.proxy_anchor(y_pred.tolist(), LABELS.tolist(), scale=4.0)))

    loss = losses.ProxyAnchorLoss(scale=4.0)
    (slope,) = gradient(lambda cosine: loss(LABELS, cosine), COSINES)
    np.testing.assert_allclose(slope, numerical_gradient(loop, COSINES)[0], rtol=1e-3, atol=1e-5)
