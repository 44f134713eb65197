"""Losses on two views of an image, and on anchors with positives: against peers and loops; which rows form a pair."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese.losses import BarlowTwinsLoss, MultipleNegativesRankingLoss, SigLIPLoss, VICRegLoss
from keras_siamese.losses.batch import base
from keras_siamese.losses.batch.views import centred, paired
from tests.oracles import views as oracles
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
from tests.support.batches import FURTHER, SIZES, array, deep_elsewhere, evaluate, uneven

torch = pytest.importorskip("torch")
peer = pytest.importorskip("pytorch_metric_learning.losses")

WEIGHTS = {"invariance": 10.0, "variance": 5.0, "covariance": 2.0, "eps": 0.01}
CASES = {
    "MultipleNegativesRankingLoss": (MultipleNegativesRankingLoss, {}, oracles.ranking, oracles.wrong_ranking),
    "MultipleNegativesRankingLoss, soft": (
        MultipleNegativesRankingLoss,
        {"scale": 2.0},
        oracles.ranking,
        oracles.wrong_ranking,
    ),
    "SigLIPLoss": (SigLIPLoss, {}, oracles.siglip, lambda *given: oracles.siglip(*given, bias=10.0)),
    "SigLIPLoss, other options": (SigLIPLoss, {"scale": 4.0, "bias": -1.0}, oracles.siglip, oracles.wrong_siglip),
    "VICRegLoss": (VICRegLoss, {}, oracles.vicreg, oracles.wrong_vicreg),
    "VICRegLoss, other weights": (
        VICRegLoss,
        WEIGHTS,
        lambda labels, x, **o: oracles.vicreg(labels, x, *WEIGHTS.values()),
        oracles.vicreg,
    ),
    "BarlowTwinsLoss": (BarlowTwinsLoss, {}, oracles.barlow_twins, oracles.wrong_barlow_twins),
    "BarlowTwinsLoss, equal": (
        BarlowTwinsLoss,
        {"redundancy": 1.0},
        oracles.barlow_twins,
        oracles.wrong_barlow_twins,
    ),
}
every_case = pytest.mark.parametrize("name", CASES)
first_cases = pytest.mark.parametrize(
    "name", [pytest.param(n, marks=FURTHER if "," in n else pytest.mark.each_backend) for n in CASES]
)
every_loss = pytest.mark.parametrize("name", [name for name in CASES if "," not in name])
every_dtype = pytest.mark.parametrize("dtype", QUICK_DTYPES)


def loop(name):
    cls, options, oracle, _ = CASES[name]
    taken = {} if cls is VICRegLoss else options
    return lambda labels, embeddings: oracle(labels, embeddings, **taken)


def views(labels):
    """Rows of the first and of the second views."""
    return (list(side) for side in zip(*oracles.pairs(labels.tolist()), strict=True))


def assert_torchs(loss, value_of, labels, embeddings):
    """Value and gradient of `value_of(first, second)` in float64."""
    tensor = torch.tensor(embeddings.astype("float64"), requires_grad=True)
    first, second = views(labels)
    value = value_of(tensor[first], tensor[second])
    value.backward()
    found = evaluate(loss, labels, embeddings)
    assert found[0] == pytest.approx(value.item(), rel=1e-5)
    grad = tensor.grad.numpy()
    np.testing.assert_allclose(found[1], grad, rtol=0, atol=1e-4 * np.abs(grad).max())


# Which rows form a pair


@pytest.mark.each_backend
@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("compiled", [False, True])
def test_pairs_are_in_the_order_of_the_batch(compiled, dtype, rng):
    """The sort by identity must be stable on each backend, compiled or not."""

    def function(labels):
        batch = base.Batch(labels, ops.zeros((60, 1)))
        return batch.places.order, *paired(batch)

    if compiled and keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        run = tf.function(function, jit_compile=True)
    elif compiled and keras.backend.backend() == "jax":
        import jax

        run = jax.jit(function)
    else:
        run = function
    for _ in range(5):
        labels = rng.integers(-3, 9, size=60)
        found = run(ops.convert_to_tensor(labels.astype(dtype)))
        order, leads, follows, follower = (array(tensor).astype(int) for tensor in found)
        assert order.tolist() == np.argsort(labels, kind="stable").tolist()
        expected = sorted(oracles.pairs(labels.tolist()))
        assert [(i, follower[i]) for i in np.flatnonzero(leads)] == expected
        assert np.flatnonzero(follows).tolist() == sorted(second for _, second in expected)


@deep_elsewhere
@every_loss
def test_left_over_rows_and_singletons_have_no_part(name, rng):
    labels, embeddings = uneven(rng, (5, 1, 2, 3, 1))
    taken = sorted(row for pair in oracles.pairs(labels.tolist()) for row in pair)
    alone = np.setdiff1d(np.arange(12), taken)
    assert len(alone) == 4
    value, grad = evaluate(CASES[name][0](), labels, embeddings)
    only = evaluate(CASES[name][0](), labels[taken], embeddings[taken])
    # The mean is over the pairs, so other rows do not make it smaller.
    assert value == pytest.approx(only[0], rel=1e-5)
    np.testing.assert_allclose(grad[taken], only[1], atol=1e-5 * np.abs(grad).max())
    assert not grad[alone].any()


def test_the_mean_of_one_valid_row_is_that_row(rng):
    view = ops.convert_to_tensor(np.where(np.arange(3)[:, None] == 1, rng.normal(size=(3, 4)), 0).astype("float32"))
    found, count = centred(view, ops.convert_to_tensor([False, True, False]))
    np.testing.assert_allclose(array(found), 0, atol=1e-6)
    assert float(count) == 1


# Peers


@deep_elsewhere
@pytest.mark.parametrize("scale", [20.0, 1.0])
def test_ranking_is_the_cross_entropy_of_sentence_transformers(scale, rng):
    """sentence-transformers computes `torch.nn.functional.cross_entropy(scale · cos(A, P), arange)`."""
    labels, embeddings = uneven(rng, (2,) * 7)

    def cross_entropy(first, second):
        first, second = (torch.nn.functional.normalize(side) for side in (first, second))
        return torch.nn.functional.cross_entropy(scale * first @ second.T, torch.arange(7))

    assert_torchs(MultipleNegativesRankingLoss(scale), cross_entropy, labels, embeddings)


@deep_elsewhere
@pytest.mark.parametrize(("scale", "bias"), [(10.0, -10.0), (1.0, 0.5)])
def test_siglip_is_open_clips(scale, bias, rng):
    """open_clip sums `-logsigmoid(labels · logits)`, `labels` 2·eye − 1, and divides by the number of images."""
    labels, embeddings = uneven(rng, (2,) * 7)

    def open_clip(first, second):
        first, second = (torch.nn.functional.normalize(side) for side in (first, second))
        logits = scale * first @ second.T + bias
        return -torch.nn.functional.logsigmoid((2 * torch.eye(7) - torch.ones(7, 7)) * logits).sum() / 7

    assert_torchs(SigLIPLoss(scale, bias), open_clip, labels, embeddings)


@deep_elsewhere
@pytest.mark.parametrize("sizes", [(2,) * 8, (6, 2, 5, 2, 3)])
def test_vicreg_is_pytorch_metric_learnings(sizes, rng):
    labels, embeddings = uneven(rng, sizes)
    for options in ({}, WEIGHTS):
        loss = peer.VICRegLoss(*options.values())
        assert_torchs(VICRegLoss(**options), lambda a, b, loss=loss: loss(a, ref_emb=b), labels, embeddings)


@deep_elsewhere
@pytest.mark.parametrize("sizes", [(2,) * 8, (6, 2, 5, 2, 3)])
def test_barlow_twins_is_the_authors_code_with_batch_normalisation(sizes, rng):
    labels, embeddings = uneven(rng, sizes)

    def authors(first, second):
        normalise = torch.nn.BatchNorm1d(6, affine=False, dtype=torch.float64)
        correlations = normalise(first).T @ normalise(second) / len(first)
        on_diagonal = (torch.diagonal(correlations) - 1).pow(2).sum()
        return on_diagonal + 0.005 * (correlations - torch.diag(torch.diagonal(correlations))).pow(2).sum()

    assert_torchs(BarlowTwinsLoss(), authors, labels, embeddings)


# Loops


@deep_elsewhere
@every_case
@pytest.mark.parametrize("sizes", SIZES)
def test_rows_are_the_loops(sizes, name, rng):
    cls, options, _, _ = CASES[name]
    assert_rows_are(loop(name), cls(**options), *uneven(rng, sizes))


@first_cases
def test_gradient_with_sample_weights_is_the_loops(name, rng):
    cls, options, _, _ = CASES[name]
    labels, embeddings = uneven(rng, (5, 1, 3, 2, 2), dim=3)
    assert_weighted_gradient_is(loop(name), cls(**options), labels, embeddings, rng)


@every_case
def test_oracles_reject_wrong_variants(name, rng):
    labels, embeddings = uneven(rng, (8, 3, 6))
    right, wrong = (of(labels.tolist(), embeddings.tolist()) for of in (loop(name), CASES[name][3]))
    assert abs(sum(right[0]) / sum(right[1]) - sum(wrong[0]) / sum(wrong[1])) > 0.02


@deep_elsewhere
@pytest.mark.parametrize("cls", [MultipleNegativesRankingLoss, SigLIPLoss])
def test_blocks_change_nothing(cls, rng):
    assert_blocks_change_nothing(cls(), *uneven(rng), rng)


@pytest.mark.deep
@every_loss
def test_compiled_for_any_batch_size(name, rng):
    assert_compiles(CASES[name][0](), [uneven(rng, (4, 1, 3, 2)), uneven(rng, (2, 5, 3, 1))], y_pred_dim=6)


# Edge cases


@deep_elsewhere
@every_dtype
@pytest.mark.parametrize("case", DEGENERATE)
@every_loss
def test_degenerate_batch(name, case, dtype):
    """A constant feature has correlation 0 and a gradient of at most 1/√(its floor)."""
    _, grad = assert_rows_are(loop(name), CASES[name][0](), *degenerate(case), dtype, tolerance=1e-3)
    assert np.abs(grad).max() < 1e3


@deep_elsewhere
@every_dtype
@pytest.mark.parametrize("case", ["no positives: all different", "batch of one"])
@every_loss
def test_no_pair_is_zero(name, case, dtype):
    values, grad = evaluate(CASES[name][0](reduction="none"), *degenerate(case), dtype)
    assert not values.any()
    assert not grad.any()


@deep_elsewhere
@every_dtype
def test_ranking_without_another_identity_is_zero(dtype):
    case = degenerate("no negatives: all the same identity")
    values, grad = evaluate(MultipleNegativesRankingLoss(reduction="none"), *case, dtype)
    np.testing.assert_allclose(values, 0.0, atol=1e-6)
    np.testing.assert_allclose(grad, 0.0, atol=1e-6)


def test_one_pair_has_no_variance_to_tell():
    labels, embeddings = np.array([3, 3]), np.array([[1.0, 0.0], [0.0, 1.0]], "float32")
    assert evaluate(VICRegLoss(), labels, embeddings)[0] == pytest.approx(25.0)
    assert evaluate(BarlowTwinsLoss(), labels, embeddings)[0] == 0


@deep_elsewhere
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@every_loss
def test_tiny_vector_is_as_good_as_zero(name, dtype):
    labels, embeddings = degenerate("zero vector")
    loss = CASES[name][0](reduction="none")
    expected = evaluate(loss, labels, embeddings, dtype)
    embeddings[1] = 1e-20
    for one, other in zip(evaluate(loss, labels, embeddings, dtype), expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-5)


@deep_elsewhere
@every_dtype
@every_loss
def test_nan_shows(name, dtype, rng):
    assert_nan_shows(CASES[name][0](), *uneven(rng, (2, 4, 3)), dtype)


@every_loss
def test_nan_of_a_row_in_no_pair_stays_its_own(name, rng):
    labels, embeddings = uneven(rng, (4, 4, 1))
    alone = np.flatnonzero(labels == 4)[0]
    embeddings[alone, 0] = np.nan
    rows = array(CASES[name][0](reduction="none")(labels, embeddings))
    assert np.flatnonzero(np.isnan(rows)).tolist() == [alone]


def test_views_take_no_blocks_and_have_no_statistics():
    with pytest.raises(TypeError, match="VICRegLoss takes the options .* got block_size"):
        VICRegLoss(block_size=4)
    with pytest.raises(ValueError, match="no statistics"):
        BarlowTwinsLoss().metrics()


def test_options_are_checked():
    for cls, option, value in (
        (MultipleNegativesRankingLoss, "scale", 0.0),
        (VICRegLoss, "invariance", -1.0),
        (VICRegLoss, "eps", 0.0),
        (BarlowTwinsLoss, "redundancy", -0.1),
    ):
        with pytest.raises(ValueError, match=f"`{option}`"):
            cls(**{option: value})
