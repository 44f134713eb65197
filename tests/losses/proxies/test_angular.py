"""Proxy losses on angles against pytorch-metric-learning and loops: values and gradients."""

import numpy as np
import pytest

from keras_siamese import losses
from tests.oracles import proxies as oracles
from tests.support.proxy_batches import (
    COSINES,
    LABELS,
    arrays,
    assert_is_pytorch_metric_learnings,
    marked,
    theirs,
    value,
)


def degrees(options):
    return {**options, "margin": np.degrees(options["margin"])}


def same(options):
    return options


# The class, its centers per class, its options, the peer's class, and the peer's names of the options.
CASES = [
    ("NormalizedSoftmaxLoss", 1, {"temperature": 0.05}, same),
    ("NormalizedSoftmaxLoss", 1, {"temperature": 0.4}, same),
    ("ArcFaceLoss", 1, {"margin": 0.5, "scale": 64}, degrees),
    ("ArcFaceLoss", 1, {"margin": 1.9, "scale": 4}, degrees),
    ("ArcFaceLoss", 1, {"margin": 0.0, "scale": 8}, degrees),
    ("SubCenterArcFaceLoss", 3, {"margin": 0.5, "scale": 64}, lambda o: {**degrees(o), "sub_centers": 3}),
    ("SubCenterArcFaceLoss", 2, {"margin": 1.2, "scale": 5}, lambda o: {**degrees(o), "sub_centers": 2}),
    ("CosFaceLoss", 1, {"margin": 0.35, "scale": 64}, same),
    ("CosFaceLoss", 1, {"margin": 1.5, "scale": 3}, same),
    ("SphereFaceLoss", 1, {"margin": 4, "scale": 1}, same),
    ("SphereFaceLoss", 1, {"margin": 3, "scale": 7}, same),
    ("SphereFaceLoss", 1, {"margin": 1, "scale": 3}, same),
]


MARKED = [marked(CASES, i) for i in range(len(CASES))]


@pytest.mark.parametrize(("name", "centers", "options", "names"), MARKED)
@pytest.mark.deep_on("jax")
def test_value_and_gradients_are_those_of_pytorch_metric_learning(name, centers, options, names):
    assert_is_pytorch_metric_learnings(name, centers, options, names(options))


def test_the_comparison_has_power():
    """Similar losses and options differ by far more than the tolerance, and some angles are larger than π − m."""
    embeddings, weights = arrays()
    values = [theirs(n, names(o), embeddings, weights)[0] for n, centers, o, names in CASES if centers == 1]
    gaps = np.abs(np.diff(np.sort(values)))
    assert np.min(gaps) > 1e-3
    own = [oracles.cosine(x, weights[y]) for x, y in zip(embeddings, LABELS, strict=True)]
    assert min(own) < -np.cos(1.9) < max(own)


def test_rows_are_the_loops():
    rows = [(row.tolist(), int(label)) for row, label in zip(COSINES, LABELS, strict=True)]
    for margin in (0.5, 2.0):
        expected = [oracles.arcface(*row, margin=margin, scale=16.0) for row in rows]
        got = value(losses.ArcFaceLoss(margin, 16, reduction="none"))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        wrong = [oracles.wrong_arcface(*row, margin=margin, scale=16.0) for row in rows]
        assert not np.allclose(wrong, expected, rtol=0.1)
    for margin in (1, 2, 5):
        got = value(losses.SphereFaceLoss(margin, 2.0, reduction="none"))
        np.testing.assert_allclose(got, [oracles.sphereface(*row, margin, 2.0) for row in rows], rtol=1e-4, atol=1e-5)


def test_arcface_falls_with_the_own_cosine_over_all_of_its_range():
    for margin in (0.3, 0.5, 1.5, 2.0):
        own = np.linspace(-1.0, 1.0, 41, dtype="float32")
        y_pred = np.stack([own, np.full(41, 0.2, "float32")], axis=1)
        terms = value(losses.ArcFaceLoss(margin, 2.0, reduction="none"), np.zeros(41, int), y_pred)
        expected = [oracles.arcface(row, 0, margin, 2.0) for row in y_pred.astype("float64").tolist()]
        np.testing.assert_allclose(terms, expected, rtol=1e-4, atol=1e-5)
        assert np.all(np.diff(terms) < 1e-6)
