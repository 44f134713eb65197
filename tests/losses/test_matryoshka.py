"""`MatryoshkaLoss` on embeddings: the sum of the losses of cut embeddings, by loops; options and refusals."""

import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese.layers import CrossBatchMemory
from tests.layers.test_memory import SIZE, as_array, batches, linear, remembered_loss
from tests.oracles import batch as oracles
from tests.oracles import views
from tests.support.batch_checks import (
    assert_compiles,
    assert_nan_shows,
    assert_rows_are,
    assert_weighted_gradient_is,
    degenerate,
    shares,
)
from tests.support.batches import array, deep_elsewhere, evaluate, uneven

DIMS, WEIGHTS = [6, 3, 1], [0.5, 1.0, 2.0]


def cut(embeddings, d, normalize=True):
    """The first d numbers of each row, divided by their norm."""
    rows = [[float(x) for x in row[:d]] for row in embeddings]
    return [[x / sum(y * y for y in row) ** 0.5 for x in row] for row in rows] if normalize else rows


def triplets(labels, embeddings):
    batch = oracles.Batch(np.array(labels), np.array(embeddings), oracles.euclidean)
    return oracles.shares(oracles.triplets(batch, margin=0.5), len(labels))


def ranking(labels, embeddings):
    return shares(*views.ranking(list(labels), embeddings))


# The inner loss, and the loop that it equals: each row's value, from labels and lists of numbers.
INNER = {
    "triplets, of distances": (losses.BatchTripletLoss(margin=0.5), triplets),
    "triplets in blocks": (losses.BatchTripletLoss(margin=0.5, block_size=4), triplets),
    "ranking, of cosines": (losses.MultipleNegativesRankingLoss(), ranking),
}
every_inner = pytest.mark.parametrize("name", INNER)


def loop(name, dims=DIMS, weights=WEIGHTS, normalize=True):
    """`(labels, embeddings) → (values, counted)`, as `assert_rows_are` takes them."""

    def of(labels, embeddings):
        total = np.zeros(len(labels))
        for d, weight in zip(dims, weights, strict=True):
            total += weight * np.array(INNER[name][1](labels, cut(embeddings, d, normalize)))
        return total.tolist(), [1.0] * len(labels)

    return of


@pytest.mark.each_backend
@every_inner
@pytest.mark.deep_on("jax")
def test_rows_and_gradients_are_those_of_the_loop(name, rng):
    labels, embeddings = uneven(rng, (4, 1, 3, 2))
    loss = losses.MatryoshkaLoss(INNER[name][0], DIMS, WEIGHTS)
    assert_rows_are(loop(name), loss, labels, embeddings)
    assert_weighted_gradient_is(loop(name), loss, labels, embeddings, rng)


@pytest.mark.parametrize("normalize", [True, False])
def test_cut_embeddings_are_normalised_or_not(normalize, rng):
    labels, embeddings = uneven(rng, (4, 1, 3, 2))
    name = "triplets, of distances"
    loss = losses.MatryoshkaLoss(INNER[name][0], DIMS, WEIGHTS, normalize=normalize)
    assert_rows_are(loop(name, normalize=normalize), loss, labels, embeddings)
    other = np.mean(loop(name, normalize=not normalize)(labels, embeddings)[0])
    assert abs(float(array(loss(labels, embeddings))) - other) > 0.05


def test_the_loop_rejects_one_weight_for_all(rng):
    labels, embeddings = uneven(rng, (4, 1, 3, 2))
    right, wrong = (loop("triplets, of distances", weights=one)(labels, embeddings)[0] for one in (WEIGHTS, [1.0] * 3))
    assert abs(np.mean(right) - np.mean(wrong)) > 0.1


def test_the_whole_embedding_alone_is_the_loss_itself(rng):
    labels, embeddings = uneven(rng)
    for inner in (losses.SupConLoss(), losses.AngularLoss(), losses.SmoothAPLoss(), losses.HistogramLoss()):
        whole, grad = evaluate(losses.MatryoshkaLoss(inner, [6], reduction="none"), labels, embeddings)
        rows, expected = evaluate(type(inner)(reduction="none"), labels, embeddings)
        np.testing.assert_allclose(whole, rows, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(grad, expected, atol=1e-5 * np.abs(expected).max())


@deep_elsewhere
def test_views_are_cut_too(rng):
    labels, embeddings = uneven(rng, (2,) * 7)
    loss = losses.MatryoshkaLoss(losses.VICRegLoss(), [4, 2], normalize=False, reduction="none")
    inner = losses.VICRegLoss(reduction="none")
    expected = sum(evaluate(inner, labels, embeddings[:, :d])[0] for d in (4, 2))
    np.testing.assert_allclose(evaluate(loss, labels, embeddings)[0], expected, rtol=1e-5)


@deep_elsewhere
@pytest.mark.parametrize("case", ["batch of one", "all embeddings the same", "zero vector"])
def test_degenerate_batch_is_finite(case):
    labels, embeddings = degenerate(case)
    value, grad = evaluate(losses.MatryoshkaLoss(losses.BatchTripletLoss(), [3, 1]), labels, embeddings)
    assert np.isfinite(value) and np.isfinite(grad).all()


def test_a_nan_shows(rng):
    assert_nan_shows(losses.MatryoshkaLoss(losses.SupConLoss(), [3, 1]), *uneven(rng, (2, 4, 3)), "float32")


@pytest.mark.deep
@pytest.mark.each_backend
def test_compiled_for_any_batch_size(rng):
    given = [uneven(rng, (4, 1, 3, 2)), uneven(rng, (2, 5, 3, 1))]
    for inner in (losses.BatchTripletLoss(), losses.AngularLoss()):
        assert_compiles(losses.MatryoshkaLoss(inner, [6, 2]), given, y_pred_dim=6)


@pytest.mark.each_backend
@pytest.mark.deep_on("tensorflow", "jax")
def test_rows_of_earlier_batches_are_cut_too(rng):
    encoder, given = linear(), batches(rng)
    model = CrossBatchMemory(encoder, SIZE)
    model.compile("sgd", losses.MatryoshkaLoss(losses.SupConLoss(), [3, 2]))
    model.optimizer.learning_rate = 0.0
    seen_labels, seen = np.zeros(0, "int32"), np.zeros((0, 3))
    for labels, x in given:
        z = as_array(encoder(x)).astype("float64")
        held = (seen_labels[-SIZE:], seen[-SIZE:]) if len(seen) >= SIZE else ([], np.zeros((0, 3)))
        wanted = sum(remembered_loss("SupConLoss", labels, z[:, :d], held[0], held[1][:, :d]) for d in (3, 2))
        found = model.fit(x, labels, batch_size=len(x), shuffle=False, verbose=0).history["loss"][0]
        assert found == pytest.approx(wanted, rel=1e-4)
        seen_labels, seen = np.concatenate([seen_labels, labels]), np.concatenate([seen, z])
    assert len(seen) > 2 * SIZE
    assert model.loss.loss.memory is None


def test_losses_that_cannot_remember_say_so(rng):
    model = CrossBatchMemory(linear(), SIZE)
    model.compile("sgd", losses.MatryoshkaLoss(losses.VICRegLoss(), [3, 2]))
    with pytest.raises(ValueError, match="VICRegLoss cannot compare with rows of earlier batches"):
        model.fit(rng.normal(size=(6, 5)), np.arange(6) // 2, verbose=0)


def test_the_reduction_is_that_of_the_inner_loss_unless_it_is_given(rng):
    labels, embeddings = uneven(rng)
    inner = losses.SupConLoss(reduction="sum")
    loss = losses.MatryoshkaLoss(inner, [embeddings.shape[1]])
    assert array(loss(labels, embeddings)) == pytest.approx(array(inner(labels, embeddings)), rel=1e-5)
    mean = losses.MatryoshkaLoss(inner, [2], reduction="mean")
    assert losses.MatryoshkaLoss.from_config(mean.get_config()).reduction == "mean"


def test_it_states_what_the_inner_loss_states(rng):
    inner = losses.BatchTripletLoss(margin=0.25, negatives="hard")
    loss = losses.MatryoshkaLoss(inner, [3, 1], [1, 0.5])
    for name in ("mining", "distance", "distance_margin", "margin_is_gap", "kind", "expects", "local_negatives"):
        assert getattr(loss, name) == getattr(inner, name), name
    assert loss.minimum == 1.5 * inner.minimum
    assert loss.value_at_collapse() == 1.5 * inner.value_at_collapse()
    cosine = losses.MatryoshkaLoss(losses.NTXentLoss(0.25), [3])
    assert (cosine.cosine_temperature, cosine.value_at_collapse(), cosine.compares_cosines) == (0.25, None, True)


def test_statistics_are_those_of_most_dimensions(rng):
    labels, embeddings = uneven(rng)
    inner = losses.BatchTripletLoss()
    found = losses.MatryoshkaLoss(inner, [2, 6], normalize=False).statistics(labels, ops.convert_to_tensor(embeddings))
    for name, (total, counted) in inner.statistics(labels, ops.convert_to_tensor(embeddings)).items():
        assert float(found[name][0]) == pytest.approx(float(total), rel=1e-5)
        assert float(found[name][1]) == pytest.approx(float(counted))
    assert len(losses.MatryoshkaLoss(inner, [2, 6]).metrics()) == 3


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ((losses.NpairsLoss(), [2]), TypeError, "`loss` of MatryoshkaLoss must be a loss on embeddings"),
        (
            (losses.MatryoshkaLoss(losses.ContrastiveLoss(), [2]), [2]),
            TypeError,
            "`loss` of MatryoshkaLoss must be the loss that another one wraps",
        ),
        (("SupConLoss", [2]), TypeError, "`loss` of MatryoshkaLoss must be a loss on embeddings"),
        ((losses.SupConLoss(), []), ValueError, "`dims` must be a list of dimensions"),
        ((losses.SupConLoss(), 4), ValueError, "`dims` must be a list of dimensions"),
        ((losses.SupConLoss(), [4, 0]), ValueError, "`dims` must be at least 1; got 0"),
        ((losses.SupConLoss(), [4, 2.0]), TypeError, "`dims` must be an integer"),
        ((losses.SupConLoss(), [4, 4]), ValueError, "`dims` must be different from each other"),
        ((losses.SupConLoss(), [4, 2], [1]), ValueError, "`weights` must be a list with one number for each"),
        ((losses.SupConLoss(), [4, 2], [1, -1]), ValueError, "`weights` must be in"),
        ((losses.SupConLoss(), [4, 2], [0, 0]), ValueError, "`weights` must not all be 0"),
    ],
)
def test_wrong_options_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        losses.MatryoshkaLoss(*given)


def test_more_dimensions_than_there_are_is_refused(rng):
    labels, embeddings = uneven(rng)
    with pytest.raises(ValueError, match="`dims` must be at most 6, the size of the embeddings in `y_pred`"):
        losses.MatryoshkaLoss(losses.SupConLoss(), [7, 2])(labels, embeddings)
