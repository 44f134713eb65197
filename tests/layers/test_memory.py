"""`CrossBatchMemory`: each step's loss is that of a loop over the batch and the rows of earlier batches."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese._export import exported
from keras_siamese.attach import dissect
from keras_siamese.layers import Chunked, CrossBatchMemory
from keras_siamese.losses.batch.rows import Batch
from tests.oracles import batch as oracles
from tests.support.batches import for_each_loss, make

DIM, SIZE, ROWS = 3, 10, 7
# Losses on embeddings that compare an anchor with others, with their loops and what these measure.
LOOPS = {
    "BatchTripletLoss": (oracles.triplets, oracles.euclidean),
    "TripletSemiHardLoss": (oracles.semi_hard, oracles.euclidean),
    "TripletHardLoss": (oracles.hard, oracles.euclidean),
    "PNLoss": (oracles.pn, oracles.cosine_distance),
    "NTXentLoss": (oracles.ntxent, oracles.cosine),
    "SupConLoss": (oracles.supcon, oracles.cosine),
    "MultiSimilarityLoss": (oracles.multi_similarity, oracles.cosine),
    "CircleLoss": (oracles.circle, oracles.cosine),
    "TupletMarginLoss": (oracles.tuplet, oracles.cosine),
    "NCALoss": (oracles.nca, oracles.squared),
    "SoftNearestNeighborLoss": (oracles.soft_nearest_neighbor, oracles.squared),
    "GeneralizedLiftedLoss": (oracles.generalized_lifted, oracles.euclidean),
    "BatchContrastiveLoss": (oracles.contrastive, oracles.euclidean),
    "ThresholdConsistentMarginLoss": (oracles.threshold_consistent, oracles.cosine),
    "BatchMarginLoss": (oracles.margin, oracles.euclidean),
}
REFUSED = ("HistogramLoss", "LiftedStructLoss", "IntraPairVarianceLoss", "MultipleNegativesRankingLoss", "SigLIPLoss")


def linear(**options):
    keras.utils.set_random_seed(4)
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(DIM, use_bias=False, **options)])


def batches(rng, count=4, rows=ROWS):
    """Identities beyond what a float32 holds, and inputs: `count` batches, of which the last is smaller."""
    labels = 2**30 + rng.integers(0, 4, (count, rows))
    found = [(one.astype("int32"), rng.normal(size=(rows, 5)).astype("float32")) for one in labels]
    return [*found[:-1], tuple(one[: rows - 2] for one in found[-1])]


def as_array(tensor):
    return np.array(ops.convert_to_numpy(tensor))  # on PyTorch it may share the memory of a weight


def remembered_loss(name, labels, z, memory_labels, memory):
    """The loop's loss of the anchors `z`, compared with themselves and with the memory."""
    loop, measure = LOOPS[name]
    both = np.concatenate([labels, memory_labels]), np.concatenate([z, memory])
    sides = loop(oracles.Batch(*both, measure))
    own = [[term for term in side if term[0] < len(labels)] for side in sides]
    return oracles.total(own)


@for_each_loss(LOOPS, further=pytest.mark.deep)
def test_each_step_is_that_of_the_loop(rng, name):
    check_steps(rng, name, SIZE)


@pytest.mark.each_backend
def test_a_batch_may_have_more_rows_than_the_memory(rng):
    check_steps(rng, "SupConLoss", 6)


def check_steps(rng, name, size):
    """Trains on some batches, and compares each step with the loop, and the memory with the last rows."""
    encoder, given = linear(), batches(rng)
    model = CrossBatchMemory(encoder, size)
    model.compile(keras.optimizers.SGD(0.05), make(name))
    seen_labels, seen = np.zeros(0, "int32"), np.zeros((0, DIM))
    for labels, x in given:
        z = as_array(encoder(x)).astype("float64")
        is_full = len(seen) >= size
        wanted = remembered_loss(
            name, labels, z, seen_labels[-size:] if is_full else [], seen[-size:] if is_full else np.zeros((0, DIM))
        )
        found = model.fit(x, labels, batch_size=ROWS, shuffle=False, verbose=0).history["loss"][0]
        assert found == pytest.approx(wanted, rel=1e-4, abs=1e-5)
        seen_labels, seen = np.concatenate([seen_labels, labels]), np.concatenate([seen, z])
        held = min(len(seen), size)
        assert (int(model.seen), int(model.place)) == (held, len(seen) % size)
        ring = (len(seen) - held + np.arange(held)) % size
        np.testing.assert_array_equal(as_array(model.labels)[ring], seen_labels[-size:])
        np.testing.assert_allclose(as_array(model.embeddings)[ring], seen[-size:], atol=1e-5)
    assert len(seen) > 2 * size


def test_the_loop_notices_a_row_that_meets_its_own_copy(rng):
    (labels, x), (earlier, other) = batches(rng)[:2]
    z, memory = x[:, :DIM], other[:, :DIM]
    right = remembered_loss("SupConLoss", labels, z, earlier, memory)
    assert abs(remembered_loss("SupConLoss", labels, z, labels, z) - right) > 0.1


@pytest.mark.each_backend
@pytest.mark.parametrize("block_size", [None, 3])
@pytest.mark.deep_on("tensorflow")
def test_the_gradient_is_that_of_the_anchors_and_of_nothing_else(rng, block_size):
    """The kernel after a step of SGD, against differences of the loop's loss with the memory held fixed."""
    encoder, given = linear(), batches(rng, 3)
    model = CrossBatchMemory(encoder, SIZE)
    model.compile(keras.optimizers.SGD(0.0), losses.SupConLoss(temperature=0.5, block_size=block_size))
    for labels, x in given[:2]:
        model.fit(x, labels, batch_size=ROWS, verbose=0, shuffle=False)
    memory, memory_labels = as_array(model.embeddings).astype("float64"), as_array(model.labels)
    labels, x = given[2]
    kernel = as_array(encoder.weights[0]).astype("float64")

    def loss(kernel):
        both = np.concatenate([labels, memory_labels]), np.concatenate([x @ kernel, memory])
        (side,) = oracles.supcon(oracles.Batch(*both, oracles.cosine), 0.5)
        return oracles.total([[term for term in side if term[0] < len(labels)]])

    wanted = np.zeros_like(kernel)
    for place in np.ndindex(kernel.shape):
        step = np.zeros_like(kernel)
        step[place] = 1e-5
        wanted[place] = (loss(kernel + step) - loss(kernel - step)) / 2e-5
    model.compile(keras.optimizers.SGD(1.0), model.loss)
    model.fit(x, labels, batch_size=ROWS, verbose=0, shuffle=False)
    np.testing.assert_allclose(kernel - as_array(encoder.weights[0]), wanted, atol=1e-4)


@pytest.mark.each_backend
def test_with_momentum_the_rows_are_those_of_the_averaged_encoder(rng):
    encoder = linear()
    model = CrossBatchMemory(encoder, SIZE, momentum=0.75)
    model.compile(keras.optimizers.SGD(0.5), losses.SupConLoss())
    average = None
    for labels, x in batches(rng):
        kernel = as_array(encoder.weights[0])
        average = kernel if average is None else 0.75 * average + 0.25 * kernel
        place = int(model.place) if model.built else 0
        model.fit(x, labels, batch_size=ROWS, verbose=0, shuffle=False)
        np.testing.assert_allclose(as_array(model.averaged.weights[0]), average, atol=1e-5)
        ring = (place + np.arange(len(x))) % SIZE
        np.testing.assert_allclose(as_array(model.embeddings)[ring], x @ average, atol=1e-4)
    assert np.abs(as_array(encoder.weights[0]) - average).max() > 1e-3
    assert len(model.trainable_weights) == 1


@pytest.mark.each_backend
@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.deep_on("tensorflow")
def test_saved_in_the_middle_it_goes_on_the_same(rng, tmp_path, momentum):
    x, labels = rng.normal(size=(40, 5)).astype("float32"), rng.integers(0, 5, 40)
    model = CrossBatchMemory(Chunked(linear(), rows=3), SIZE, momentum)
    model.compile(keras.optimizers.SGD(0.1), losses.NTXentLoss())
    model.fit(x, labels, batch_size=ROWS, verbose=0, shuffle=False)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    outcomes = []
    for one in (model, again):
        history = one.fit(x, labels, batch_size=ROWS, epochs=2, verbose=0, shuffle=False).history["loss"]
        outcomes.append([history, *map(as_array, one.weights)])
    for own, theirs in zip(*outcomes, strict=True):
        np.testing.assert_allclose(own, theirs, atol=1e-5)


@pytest.mark.each_backend
def test_evaluation_neither_uses_nor_changes_the_memory(rng):
    x, labels = rng.normal(size=(40, 5)).astype("float32"), rng.integers(0, 5, 40)
    encoder, loss = linear(), losses.SupConLoss()
    model = CrossBatchMemory(encoder, SIZE)
    model.compile(keras.optimizers.SGD(0.1), loss)
    model.fit(x, labels, batch_size=ROWS, verbose=0)
    before = [as_array(one) for one in (model.embeddings, model.labels, model.place, model.seen)]
    found = model.evaluate(x, labels, batch_size=40, verbose=0)
    assert found == pytest.approx(float(as_array(loss(labels, encoder(x)))), rel=1e-4)
    for one, other in zip(before, (model.embeddings, model.labels, model.place, model.seen), strict=True):
        np.testing.assert_array_equal(one, as_array(other))
    assert loss.memory is None


@pytest.mark.parametrize("name", REFUSED)
def test_losses_that_are_no_sum_over_anchors_are_refused(rng, name):
    model = CrossBatchMemory(linear(), SIZE)
    model.compile("sgd", make(name))
    with pytest.raises(ValueError, match=rf"{name} is not a sum over anchors, so it cannot compare them"):
        model.fit(rng.normal(size=(6, 5)), np.arange(6) // 2, verbose=0)


@pytest.mark.parametrize("name", [name for name in exported(losses.BatchLoss) if name not in REFUSED])
@pytest.mark.parametrize("block_size", [None, 4])
def test_each_loss_has_the_costs_of_the_anchors_in_a_larger_batch(rng, name, block_size):
    loss = make(name, block_size=block_size)
    labels, z = 2**30 + rng.integers(0, 5, 21), rng.normal(size=(21, DIM)).astype("float32")
    labels, z = ops.convert_to_tensor(labels.astype("int32")), ops.convert_to_tensor(z)
    wanted, _ = loss.costs_of(Batch(labels, z), False)
    alone, _ = loss.costs_of(Batch(labels[:8], z[:8]), False)
    for is_full, expected in ((True, wanted), (False, alone)):
        with loss.remembering((labels[8:], z[8:], ops.convert_to_tensor(is_full))):
            found, _ = loss.costs_of(Batch(labels[:8], z[:8]), False)
        for one, other in zip(found, expected, strict=True):
            for own, theirs in zip(one, other, strict=True):
                np.testing.assert_allclose(as_array(own), as_array(theirs)[:8], rtol=1e-5, atol=1e-5)


@pytest.mark.torch
def test_replicas_are_refused(monkeypatch):
    monkeypatch.setattr("keras_siamese.losses.batch.base.is_replicated", lambda: True)
    memory = losses.SupConLoss().remembering((None, None, None))
    with pytest.raises(ValueError, match="does not work with several replicas"), memory:
        pass


def test_what_does_not_fit_is_refused(rng):
    x, labels = rng.normal(size=(6, 5)), np.arange(6) // 2
    for loss in ("mse", losses.VICRegLoss()):
        model = CrossBatchMemory(linear(), SIZE)
        model.compile("sgd", loss)
        with pytest.raises(ValueError, match=r"`loss` of CrossBatchMemory must be a loss on embeddings"):
            model.fit(x, labels, verbose=0)
    for options in ({"size": 0}, {"size": 2.5}, {"momentum": 1.0}, {"momentum": -0.1}):
        with pytest.raises((ValueError, TypeError), match=f"`{next(iter(options))}` must be"):
            CrossBatchMemory(linear(), **options)
    with pytest.raises(TypeError, match=r"`encoder` must be a Keras model or layer; got 'no'"):
        CrossBatchMemory("no")


def test_examined_it_is_its_encoder():
    encoder = linear()
    assert dissect(CrossBatchMemory(Chunked(encoder))).encoder is encoder
