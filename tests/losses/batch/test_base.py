"""Batch losses as Keras losses: reductions, weights, masks, blocks of rows, invariances, training, statistics.

The parametrised tests cover all subclasses of `BatchLoss`.
"""

import json

import hypothesis
import hypothesis.strategies as st
import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese._export import exported
from tests.oracles import batch as oracles
from tests.oracles.batch import Batch
from tests.support.batches import REQUIRED, array, deep_elsewhere, evaluate, for_each_loss, make, per_row, uneven
from tests.support.encoders import LeakyMean

NAMES = list(exported(losses.BatchLoss))
every_loss = for_each_loss(NAMES)
few_losses = for_each_loss(NAMES, pytest.mark.deep)
BACKEND = keras.backend.backend()
# torch.compile needs a C++ toolchain; without its compiler, JAX runs each operation by itself.
JIT, PLAIN = BACKEND != "torch", BACKEND == "jax"


def set_mask(tensor, mask):
    keras.src.backend.set_keras_mask(tensor, ops.convert_to_tensor(mask))
    return tensor


# Reductions, weights and masks


@every_loss
def test_reductions_are_those_of_keras(name, rng):
    labels, embeddings = uneven(rng, (3, 1, 2, 2))
    weights = np.array([1.0, 0.0, 2.0, 0.5, 3.0, 1.0, 0.25, 1.5], "float32")
    rows = array(per_row(name)(labels, embeddings))
    assert rows.shape == (8,)
    expected = {
        "sum_over_batch_size": (rows.mean(), (weights * rows).mean()),
        "mean": (rows.mean(), (weights * rows).mean()),
        "sum": (rows.sum(), (weights * rows).sum()),
        "mean_with_sample_weight": (rows.mean(), (weights * rows).sum() / weights.sum()),
        "none": (rows, weights * rows),
        None: (rows, weights * rows),
    }
    for reduction, (plain, weighted) in expected.items():
        loss = make(name, reduction=reduction)
        np.testing.assert_allclose(array(loss(labels, embeddings)), plain, rtol=1e-5, atol=1e-6)
        for form in (weights, weights[:, None])[: 2 if reduction in ("none", "sum_over_batch_size") else 1]:
            found = array(loss(labels, embeddings, sample_weight=form))
            # Without a reduction, Keras returns the shape of the weights.
            assert found.shape == (np.shape(form) if reduction in ("none", None) else ())
            found = found.reshape(np.shape(weighted))
            np.testing.assert_allclose(found, weighted, rtol=1e-5, atol=1e-6)


@deep_elsewhere
@pytest.mark.parametrize("name", ["BatchTripletLoss", "CircleLoss", "BatchContrastiveLoss"])
def test_class_weight_weighs_anchors(name, rng):
    labels, embeddings = uneven(rng, (3, 1, 2, 2))
    labels = np.unique(labels, return_inverse=True)[1]
    weights = {0: 2.0, 1: 0.5, 2: 0.0, 3: 3.0}
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    model.compile(keras.optimizers.SGD(0.0), loss=make(name), jit_compile=PLAIN)
    rows = array(per_row(name)(labels, array(model(embeddings))))
    found = model.fit(embeddings, labels, batch_size=8, class_weight=weights, verbose=0).history["loss"][0]
    expected = (rows * [weights[i] for i in labels.tolist()]).mean()
    assert expected != pytest.approx(rows.mean(), rel=0.01)
    assert found == pytest.approx(expected, rel=1e-4)


@every_loss
def test_a_mask_over_time_steps_does_not_reach_the_rows(name, rng):
    labels, embeddings = uneven(rng, (3, 1, 2, 2))
    plain = array(make(name)(labels, embeddings))
    steps = rng.integers(0, 2, size=(8, 5)).astype(bool)
    masked = set_mask(ops.convert_to_tensor(embeddings), steps)
    np.testing.assert_allclose(array(make(name)(labels, masked)), plain, rtol=1e-6)
    rows = np.array([1, 1, 0, 1, 0, 1, 1, 1], bool)
    masked = set_mask(ops.convert_to_tensor(embeddings), rows)
    values = array(per_row(name)(labels, embeddings))
    np.testing.assert_allclose(array(make(name)(labels, masked)), values[rows].mean(), rtol=1e-5, atol=1e-6)


@pytest.mark.each_backend
def test_a_mask_that_an_encoder_hands_on_does_not_change_the_loss(rng):
    steps = keras.Sequential(
        [keras.Input((7,), dtype="int32"), keras.layers.Embedding(9, 4, mask_zero=True), LeakyMean()]
    )
    x, labels = rng.integers(0, 9, size=(8, 7)), np.array([1, 1, 2, 2, 2, 3, 3, 4])
    steps.compile(keras.optimizers.SGD(0.0), loss=losses.NTXentLoss(), jit_compile=PLAIN)
    expected = float(array(losses.NTXentLoss()(labels, array(steps(x)))))
    assert steps.fit(x, labels, verbose=0).history["loss"] == pytest.approx([expected], rel=1e-5)


# Blocks of rows


@every_loss
def test_blocks_of_rows_change_neither_value_nor_gradient(name, rng):
    """18 rows in blocks of 5, the last with 3."""
    labels, embeddings = uneven(rng)
    value, grad = evaluate(make(name), labels, embeddings)
    blocked = evaluate(make(name, block_size=5), labels, embeddings)
    assert blocked[0] == pytest.approx(value, rel=1e-5, abs=1e-6)
    np.testing.assert_allclose(blocked[1], grad, rtol=0, atol=2e-5 * max(1e-2, np.abs(grad).max()))


@pytest.mark.tensorflow
@pytest.mark.parametrize("name", NAMES)
def test_the_batch_may_have_any_size_in_a_graph(name, rng):
    import tensorflow as tf

    loss, (labels, embeddings) = make(name), uneven(rng)
    signature = tf.TensorSpec([None], "int32"), tf.TensorSpec([None, embeddings.shape[1]], "float32")
    found = tf.function(loss.__call__, input_signature=signature)(labels.astype("int32"), embeddings)
    np.testing.assert_allclose(found, array(loss(labels.astype("int32"), embeddings)), rtol=1e-4, atol=1e-6)


@deep_elsewhere
@pytest.mark.parametrize("size", [1, 18, 40])
@pytest.mark.parametrize("name", ["BatchTripletLoss", "LiftedStructLoss", "IntraPairVarianceLoss"])
def test_blocks_of_any_size(name, size, rng):
    labels, embeddings = uneven(rng)
    value, grad = evaluate(make(name), labels, embeddings)
    blocked = evaluate(make(name, block_size=size), labels, embeddings)
    assert blocked[0] == pytest.approx(value, rel=1e-5)
    np.testing.assert_allclose(blocked[1], grad, rtol=0, atol=2e-5 * np.abs(grad).max())


@pytest.mark.parametrize(
    ("name", "jit_compile"),
    [
        pytest.param("BatchTripletLoss", PLAIN, marks=pytest.mark.each_backend),
        pytest.param("TripletSemiHardLoss", JIT, marks=pytest.mark.deep),
        pytest.param("LiftedStructLoss", PLAIN, marks=pytest.mark.deep),
    ],
)
@pytest.mark.deep_on("tensorflow")
def test_blocks_in_fit_with_batches_of_other_sizes(name, jit_compile, rng):
    """Compiled in blocks against the whole batch; on TensorFlow the latter runs eagerly, which compiles nothing."""
    labels, x = uneven(rng)
    # JAX compiles anew for each size, TensorFlow once for any: there the last batch is another one.
    batch_size = 9 if BACKEND == "jax" else 10
    histories = []
    for block_size, eagerly in ((None, BACKEND == "tensorflow"), (5, False)):
        keras.utils.set_random_seed(5)
        model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
        loss, jit = make(name, block_size=block_size), jit_compile and not eagerly
        model.compile(keras.optimizers.SGD(0.1), loss=loss, jit_compile=jit, run_eagerly=eagerly)
        histories.append(
            model.fit(x, labels, batch_size=batch_size, epochs=2, shuffle=False, verbose=0).history["loss"]
        )
    np.testing.assert_allclose(*histories, rtol=1e-4)
    assert histories[0][0] != histories[0][1]


def test_blocks_need_kerass_rematerialisation(monkeypatch):
    monkeypatch.delattr(keras, "remat", raising=False)
    with pytest.warns(UserWarning, match=r"`block_size` saves memory only with Keras 3.9 or later"):
        loss = losses.NCALoss(block_size=4)
    labels, embeddings = np.array([0, 0, 1, 1, 1]), np.random.default_rng(0).normal(size=(5, 3)).astype("float32")
    assert float(loss(labels, embeddings)) == pytest.approx(float(losses.NCALoss()(labels, embeddings)), rel=1e-5)
    assert losses.NCALoss().block_size is None


# Invariances

SETTINGS = hypothesis.settings(deadline=None, max_examples=4, derandomize=True)
# In these losses, the order of the rows defines the pairs.
ORDERED = {"MultipleNegativesRankingLoss", "SigLIPLoss"}


@every_loss
@SETTINGS
@hypothesis.given(st.data())
def test_neither_order_nor_names_of_identities_matter(name, data):
    labels, embeddings = uneven(np.random.default_rng(data.draw(st.integers(0, 99), "seed")), (3, 1, 2, 2))
    order = data.draw(st.just(range(8)) if name in ORDERED else st.permutations(range(8)), "order")
    known = np.unique(labels)
    names = data.draw(st.lists(st.integers(-(2**31), 2**31 - 1), min_size=4, max_size=4, unique=True), "names")
    renamed = np.array([names[known.tolist().index(label)] for label in labels.tolist()])
    rows, _ = evaluate(per_row(name), labels, embeddings)
    again, _ = evaluate(per_row(name), renamed[list(order)], embeddings[list(order)])
    np.testing.assert_allclose(again, rows[list(order)], rtol=1e-4, atol=1e-4 * max(1.0, np.abs(rows).max()))


# Training


def blobs(rng, identities=4, each=4):
    labels = np.repeat(np.arange(identities), each)
    centres = rng.normal(size=(identities, 6))
    x = centres[labels] + 0.8 * rng.normal(size=(len(labels), 6))
    return x.astype("float32"), labels


def small_encoder(*tail):
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="tanh"), keras.layers.Dense(4, use_bias=False), *tail]
    )


@few_losses
@pytest.mark.deep_on("tensorflow")
def test_training_lowers_the_loss(name, rng):
    """Compiled by XLA if the backend has it."""
    x, labels = blobs(rng)
    model = small_encoder(keras.layers.UnitNormalization())
    model.compile(keras.optimizers.Adam(0.03), loss=make(name), jit_compile=JIT)
    found = model.fit(x, labels, batch_size=16, epochs=12, shuffle=False, verbose=0).history["loss"]
    assert np.isfinite(found).all()
    # A mean over the terms above zero falls slowly, because terms that reach 0 leave the mean.
    assert min(found[6:]) < 0.97 * found[0], found


@pytest.fixture
def policy():
    yield keras.config.set_dtype_policy
    keras.config.set_dtype_policy("float32")


@few_losses
def test_mixed_precision(name, rng, policy):
    x, labels = blobs(rng)
    found = {}
    for kind in ("float32", "mixed_float16", "mixed_bfloat16"):
        policy(kind)
        keras.utils.set_random_seed(4)
        model = small_encoder()
        assert model.compute_dtype == kind.removeprefix("mixed_")
        model.compile(keras.optimizers.SGD(0.01), loss=make(name), run_eagerly=not PLAIN, jit_compile=PLAIN)
        before = model.get_weights()
        found[kind] = float(model.train_on_batch(x, labels))
        assert all(np.isfinite(weight).all() for weight in model.get_weights())
        # In float16 the first steps only find the scale of the loss.
        moved = any((old != new).any() for old, new in zip(before, model.get_weights(), strict=True))
        assert moved or kind == "mixed_float16"
    rounding = {"mixed_float16": 2e-2, "mixed_bfloat16": 0.15}
    for kind, tolerance in rounding.items():
        assert found[kind] == pytest.approx(found["float32"], rel=tolerance, abs=tolerance / 10), kind


# Statistics


def pair_sums(batch, similarity):
    """Sum and count of the distances of positive and of negative pairs."""
    near = [1.0 - batch.d[a][p] if similarity else batch.d[a][p] for a, p in batch.positive_pairs()]
    far = [1.0 - batch.d[a][n] if similarity else batch.d[a][n] for a, n in batch.negative_pairs()]
    return {"positive_distance": (sum(near), len(near)), "negative_distance": (sum(far), len(far))}


def above_zero_of(sides, possible=None):
    terms = [value for side in sides for _, value, _ in side]
    return sum(value > 0 for value in terms), len(terms) if possible is None else possible


def valid_anchors(batch):
    return sum(bool(batch.positives(a) and batch.negatives(a)) for a in batch.rows)


def pairs_of(batch):
    return len(batch.positive_pairs()) + len(batch.negative_pairs())


def ranked_activity(batch):
    return sum(batch.d[a][p] > 0.8 for a, p in batch.positive_pairs()) + sum(
        batch.d[a][n] < 1.2 for a, n in batch.negative_pairs()
    )


# How many terms are above zero and how many could be: the loop's terms, unless it lists others.
ACTIVITY = {
    "ThresholdConsistentMarginLoss": lambda b: above_zero_of(oracles.threshold_consistent(b), pairs_of(b)),
    "GeneralizedLiftedLoss": lambda b: above_zero_of(oracles.generalized_lifted(b), valid_anchors(b)),
    "RankedListLoss": lambda b: (ranked_activity(b), pairs_of(b)),
}


def statistics_of(name, labels, embeddings):
    """Sum and count of each statistic over one batch, from loops, by name."""
    loop, measure = oracles.DEFAULTS[name]
    batch = Batch(labels, embeddings, measure)
    found = pair_sums(batch, measure is oracles.cosine)
    if exported()[name].hinged:
        options = REQUIRED.get(name, {})
        found["active_fraction"] = ACTIVITY.get(name, lambda b: above_zero_of(loop(b, **options)))(batch)
    return found


def mean_of(batches):
    """The mean of each statistic over batches, weighted by their counts, by name."""
    return {key: sum(b[key][0] for b in batches) / sum(b[key][1] for b in batches) for key in batches[0]}


@for_each_loss([name for name in NAMES if name in oracles.DEFAULTS])
def test_statistics_are_the_loops_over_the_batches_of_an_epoch(name, rng):
    loss = make(name)
    metrics = loss.metrics()
    expected = []
    for sizes in ((3, 1, 2, 2), (5, 3), (1, 4, 1, 2)):
        labels, embeddings = uneven(rng, sizes, scale=0.7)
        expected.append(statistics_of(name, labels, embeddings))
        loss(labels, embeddings)
        for metric in metrics:
            metric.update_state(labels, embeddings)
    found = {metric.name: float(metric.result()) for metric in metrics}
    assert found == pytest.approx(mean_of(expected), rel=1e-4)
    assert set(found) == {"positive_distance", "negative_distance", "active_fraction"} - (
        set() if loss.hinged else {"active_fraction"}
    )


PARTLY = {
    "TripletHardLoss": (oracles.hard, {"margin": 0.01}),
    "TripletSemiHardLoss": (oracles.semi_hard, {"margin": 0.01}),
    "BatchTripletLoss": (oracles.triplets, {"margin": 0.01}),
}


@deep_elsewhere
@pytest.mark.parametrize("name", PARTLY)
def test_active_fraction_where_some_cost_nothing(name, rng):
    """Identities that overlap, so that some anchors have a loss of 0 and others do not."""
    loop, options = PARTLY[name]
    labels, embeddings = uneven(rng)
    embeddings += 0.2 * np.unique(labels, return_inverse=True)[1][:, None].astype("float32")
    loss = make(name, **options)
    (metric,) = loss.metrics("active_fraction")
    loss(labels, embeddings)
    sides = loop(Batch(labels, embeddings, oracles.DEFAULTS[name][1]), **options)
    terms = [np.float32(value) for _, value, _ in sides[0]]
    expected = sum(value > 0 for value in terms) / len(terms)
    assert float(metric.result()) == pytest.approx(expected, rel=1e-5)
    assert 0.02 < expected < 0.98


@for_each_loss([name for name in NAMES if make(name).statistic_names()])
def test_statistics_are_the_same_in_blocks_and_alone(name, rng):
    labels, embeddings = uneven(rng, (3, 1, 2, 2))
    found = []
    for loss in (make(name), make(name, block_size=3)):
        metrics = loss.metrics()
        for metric in metrics:
            metric.update_state(labels, embeddings)  # alone, it asks the loss
        found.append([float(metric.result()) for metric in metrics])
    np.testing.assert_allclose(*found, rtol=1e-5)
    assert all(np.isfinite(found[0]))


@deep_elsewhere
@pytest.mark.parametrize(
    ("name", "jit_compile"), [("RankedListLoss", PLAIN), pytest.param("BatchTripletLoss", JIT, marks=pytest.mark.deep)]
)
def test_statistics_in_fit_evaluate_and_after_reloading(name, jit_compile, rng, tmp_path):
    labels, x = uneven(rng, "mixed", dim=6, scale=0.7)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    loss = make(name)
    model.compile(keras.optimizers.SGD(0.0), loss=loss, metrics=loss.metrics(), jit_compile=jit_compile)
    batches = [slice(0, 8), slice(8, 16), slice(16, 18)]
    embeddings = array(model(x))
    expected = mean_of([statistics_of(name, labels[one], embeddings[one]) for one in batches])
    history = model.fit(x, labels, batch_size=8, epochs=2, shuffle=False, verbose=0).history
    for epoch in range(2):
        assert {key: history[key][epoch] for key in expected} == pytest.approx(expected, rel=1e-4)
    model.save(tmp_path / "model.keras")
    for one in (model, keras.saving.load_model(tmp_path / "model.keras")):
        found = one.evaluate(x, labels, batch_size=8, verbose=0, return_dict=True)
        assert {key: found[key] for key in expected} == pytest.approx(expected, rel=1e-4)


@deep_elsewhere
def test_statistics_cost_no_second_distance_matrix(rng, monkeypatch):
    calls = []
    measure = losses.NCALoss.measure
    monkeypatch.setattr(losses.NCALoss, "measure", lambda self, a, b: calls.append(1) or measure(self, a, b))
    labels, x = uneven(rng)
    loss = losses.NCALoss()
    metrics = loss.metrics()
    loss(labels, x)
    for metric in metrics:
        metric.update_state(labels, x)
    assert len(calls) == 1
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4)])
    loss = losses.NCALoss()
    model.compile("sgd", loss=loss, metrics=loss.metrics(), run_eagerly=True, jit_compile=False)
    model.fit(x, labels, batch_size=9, verbose=0)  # what Keras infers of shapes comes before
    for work in (model.fit, model.evaluate):
        calls.clear()
        work(x, labels, batch_size=9, verbose=0)
        assert len(calls) == 2, work  # batches


def test_statistics_of_a_name_that_does_not_exist():
    with pytest.raises(ValueError, match=r"`statistics` must be one of 'positive_distance', 'negative_distance'; got"):
        losses.NCALoss().metrics("active_fraction")


# Files


@few_losses
def test_a_saved_encoder_has_its_loss(name, tmp_path, rng):
    labels, x = uneven(rng, (3, 1, 2, 2))
    model = small_encoder()
    model.compile("sgd", loss=make(name, block_size=3, reduction="sum", name="ours"), jit_compile=PLAIN)
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(again.loss) is type(model.loss)
    assert json.dumps(again.loss.get_config()) == json.dumps(model.loss.get_config())
    values = [array(one.loss(labels, one(x))) for one in (model, again)]
    np.testing.assert_allclose(*values, rtol=1e-6)
