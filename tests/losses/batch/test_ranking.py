"""FastAP, Smooth-AP and the histogram loss against pytorch-metric-learning and against loops; degenerate batches."""

import numpy as np
import pytest

from keras_siamese.losses import FastAPLoss, HistogramLoss, SmoothAPLoss
from tests.oracles import ranking as oracles
from tests.support.batch_checks import (
    DEGENERATE,
    QUICK_DTYPES,
    assert_blocks_change_nothing,
    assert_compiles,
    assert_nan_shows,
    assert_rows_are,
    assert_weighted_gradient_is,
    degenerate,
)
from tests.support.batches import FURTHER, SIZES, deep_elsewhere, evaluate, uneven

torch = pytest.importorskip("torch")
peer = pytest.importorskip("pytorch_metric_learning.losses")


def loop(oracle, **options):
    return lambda labels, embeddings: oracle(oracles.cosines(embeddings), labels, **options)


CASES = {
    "FastAPLoss": (FastAPLoss, {}, oracles.fast_ap, oracles.wrong_fast_ap),
    "FastAPLoss, 4 bins": (FastAPLoss, {"bins": 4}, oracles.fast_ap, oracles.wrong_fast_ap),
    "SmoothAPLoss": (SmoothAPLoss, {}, oracles.smooth_ap, oracles.wrong_smooth_ap),
    "SmoothAPLoss, warm": (SmoothAPLoss, {"temperature": 0.25}, oracles.smooth_ap, oracles.wrong_smooth_ap),
    "HistogramLoss": (HistogramLoss, {}, oracles.histogram, oracles.wrong_histogram),
    "HistogramLoss, 7 bins": (HistogramLoss, {"bins": 7}, oracles.histogram, oracles.wrong_histogram),
}
every_case = pytest.mark.parametrize("name", CASES)
first_cases = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=FURTHER if "," in n else pytest.mark.each_backend) for n in CASES]
)
every_loss = pytest.mark.parametrize("name", ["FastAPLoss", "SmoothAPLoss", "HistogramLoss"])


def theirs(loss, labels, embeddings):
    tensor = torch.tensor(embeddings.astype("float64"), requires_grad=True)
    value = loss(tensor, torch.tensor(labels))
    value.backward()
    return value.item(), tensor.grad.numpy()


def assert_peers(ours, loss, labels, embeddings):
    value, grad = theirs(loss, labels, embeddings)
    found = evaluate(ours, labels, embeddings)
    assert found[0] == pytest.approx(value, rel=1e-5)
    assert np.abs(grad).max() > 1e-3
    np.testing.assert_allclose(found[1], grad, rtol=0, atol=1e-4 * np.abs(grad).max())


@deep_elsewhere
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("bins", [10, 3])
def test_fast_ap_is_pytorch_metric_learnings(bins, sizes, rng):
    labels, embeddings = uneven(rng, sizes)
    assert_peers(FastAPLoss(bins), peer.FastAPLoss(bins), labels, embeddings)


@deep_elsewhere
@pytest.mark.parametrize("size", [3, 4, 5])
@pytest.mark.parametrize("temperature", [0.01, 0.1])
def test_smooth_ap_is_pytorch_metric_learnings(temperature, size, rng):
    """With n identities of n rows each, because the peer confuses the two numbers."""
    labels, embeddings = uneven(rng, (size,) * size, dim=3)
    order = np.argsort(labels, kind="stable")
    labels, embeddings = labels[order] - labels.min(), embeddings[order]
    labels = np.unique(labels, return_inverse=True)[1]
    assert_peers(SmoothAPLoss(temperature), peer.SmoothAPLoss(temperature), labels, embeddings)


@deep_elsewhere
@pytest.mark.filterwarnings("ignore:Using a non-tuple sequence:UserWarning")
@pytest.mark.parametrize("sizes", ["pairs", (6, 2, 5, 2, 3)])
@pytest.mark.parametrize("bins", [100, 10])
def test_histogram_is_pytorch_metric_learnings_where_every_row_has_a_positive(bins, sizes, rng):
    labels, embeddings = uneven(rng, sizes)
    assert_peers(HistogramLoss(bins), peer.HistogramLoss(bins), labels, embeddings)


@deep_elsewhere
@every_case
@pytest.mark.parametrize("sizes", SIZES)
def test_rows_are_the_loops(sizes, name, rng):
    cls, options, oracle, _ = CASES[name]
    assert_rows_are(loop(oracle, **options), cls(**options), *uneven(rng, sizes))


@first_cases
def test_gradient_with_sample_weights_is_the_loops(name, rng):
    cls, options, oracle, _ = CASES[name]
    labels, embeddings = uneven(rng, (4, 1, 3, 2), dim=3)
    assert_weighted_gradient_is(loop(oracle, **options), cls(**options), labels, embeddings, rng)


@every_case
def test_oracles_reject_wrong_variants(name, rng):
    _, options, oracle, wrong = CASES[name]
    labels, embeddings = uneven(rng)
    s = oracles.cosines(embeddings)
    right = oracles.mean(*oracle(s, labels.tolist(), **options))
    assert abs(right - oracles.mean(*wrong(s, labels.tolist(), **options))) > 0.02


@pytest.mark.deep
@every_case
def test_blocks_change_nothing(name, rng):
    cls, options, _, _ = CASES[name]
    assert_blocks_change_nothing(cls(**options), *uneven(rng), rng)


@pytest.mark.deep
@every_loss
def test_compiled_for_any_batch_size(name, rng):
    cls, options, _, _ = CASES[name]
    assert_compiles(cls(**options), [uneven(rng, (4, 1, 3)), uneven(rng, (2, 5, 3, 1))], y_pred_dim=6)


# Edge cases


@deep_elsewhere
@pytest.mark.parametrize("dtype", QUICK_DTYPES)
@pytest.mark.parametrize("case", DEGENERATE)
@every_loss
def test_degenerate_batch(name, case, dtype):
    """A cosine of ±1 is at the last node, with no bin beyond it."""
    cls, options, oracle, _ = CASES[name]
    labels, embeddings = degenerate(case)
    _, grad = assert_rows_are(loop(oracle), cls(**options), labels, embeddings, dtype, tolerance=1e-3)
    assert np.abs(grad).max() < 1e3


@deep_elsewhere
@pytest.mark.parametrize("dtype", QUICK_DTYPES)
@pytest.mark.parametrize("case", ["no positives: all different", "no negatives: all the same identity", "batch of one"])
@every_loss
def test_nothing_to_rank_is_zero(name, case, dtype):
    values, grad = evaluate(CASES[name][0](reduction="none"), *degenerate(case), dtype)
    np.testing.assert_allclose(values, 0.0, atol=1e-6)
    np.testing.assert_allclose(grad, 0.0, atol=1e-6)


@deep_elsewhere
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@every_loss
def test_tiny_vector_is_one_without_direction(name, dtype):
    labels, embeddings = degenerate("zero vector")
    expected = evaluate(CASES[name][0](reduction="none"), labels, embeddings, dtype)
    embeddings[1] = 1e-20
    found = evaluate(CASES[name][0](reduction="none"), labels, embeddings, dtype)
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@deep_elsewhere
@pytest.mark.parametrize("dtype", QUICK_DTYPES)
@every_loss
def test_nan_shows(name, dtype, rng):
    assert_nan_shows(CASES[name][0](), *uneven(rng), dtype)


def test_perfect_and_reversed_order():
    """Three rows for each identity, so that rank⁺/rank of a reversed order is known."""
    labels = np.array([1, 1, 1, 2, 2, 2])
    apart = np.array([[1, 0]] * 3 + [[-1, 0]] * 3, "float32")
    for cls in (FastAPLoss, HistogramLoss):
        assert evaluate(cls(), labels, apart)[0] == pytest.approx(0.0, abs=1e-6)
    mixed = np.array([[1, 0], [-1, 0], [-1, 0], [1, 0], [1, 0], [-1, 0]], "float32")
    assert evaluate(HistogramLoss(), labels, mixed)[0] > 0.5


@pytest.mark.parametrize("cls", [FastAPLoss, HistogramLoss])
def test_bins_are_checked(cls):
    with pytest.raises(ValueError, match="`bins` must be at least 1"):
        cls(0)
    with pytest.raises(TypeError, match="`bins` must be an integer"):
        cls(2.5)


def test_temperature_is_checked():
    with pytest.raises(ValueError, match="`temperature`"):
        SmoothAPLoss(0.0)
