"""From a model to scores: the encoder that is found or refused, the pairs that are drawn, one embedding an item."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_siamese import verification
from keras_siamese.attach.anatomy import dissect
from keras_siamese.layers import DistanceLayer, SiameseWrapper
from keras_siamese.scoring import (
    ScoredTrials,
    Trials,
    attach,
    check_items,
    embed,
    equal_blocks,
    score,
)
from tests.support.fresh_python import fresh
from tests.support.programs import PROGRAMS, batch

FEATURES = 4
# JAX has none unless it is told so for the whole process.
FLOAT64 = pytest.param("float64", marks=[pytest.mark.tensorflow, pytest.mark.torch])


@pytest.fixture
def x(rng):
    return rng.normal(size=(30, FEATURES)).astype("float32")


LABELS = np.repeat(np.arange(10), 3)


def encoder_model(name="encoder", dim=3):
    inputs = keras.Input((FEATURES,))
    return keras.Model(inputs, layers.UnitNormalization()(layers.Dense(dim)(inputs)), name=name)


# --- scores


class Counting(layers.Layer):
    """Puts out its inputs, and notes how many rows came each time."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def call(self, inputs):
        if isinstance(inputs.shape[0], int):
            self.rows.append(inputs.shape[0])
        return inputs + 0.0


def test_each_item_is_embedded_once_in_blocks_of_one_length(x):
    encoder = Counting()
    siamese = SiameseWrapper(encoder, "euclidean")
    siamese((x[:2], x[:2]))
    encoder.rows.clear()
    scored = score(siamese, Trials.of((x, LABELS)), batch_size=8)
    assert encoder.rows == [8, 8, 8, 8] and len(scored.scores) == 435
    np.testing.assert_allclose(scored.embeddings, x, rtol=1e-6)


@pytest.mark.parametrize("head", [None, "logistic"])
@pytest.mark.parametrize("is_functional", [False, True])
def test_scores_computed_in_numpy_are_those_of_the_model(x, head, is_functional, monkeypatch):
    siamese, trials = SiameseWrapper(encoder_model(), "euclidean", head=head), Trials.of((x, LABELS))
    siamese((x[:2], x[:2]))
    inputs = keras.Input((FEATURES,)), keras.Input((FEATURES,))
    anatomy = dissect(keras.Model(inputs, siamese(inputs)) if is_functional else siamese)
    assert anatomy.compares_by_wrapper == (not is_functional or head is None)
    exactly, quickly = score(anatomy, trials, exactly=True), score(anatomy, trials)
    np.testing.assert_allclose(quickly.scores, exactly.scores, rtol=1e-6, atol=1e-6)
    monkeypatch.setattr("keras_siamese.scoring.rows_apart", lambda *args: np.full(len(trials), 2.0, "float32"))
    assert (np.ptp(score(anatomy, trials).scores) < 1e-6) == anatomy.compares_by_wrapper
    np.testing.assert_array_equal(score(anatomy, trials, exactly=True).scores, exactly.scores)


@pytest.mark.parametrize("how", ["a subclass", "set by hand", "another distance layer"])
def test_a_comparison_of_ones_own_is_never_replaced(x, how):
    class First(SiameseWrapper):
        def compare(self, *embeddings):
            return super().compare(*[one[:, :1] for one in embeddings])

    class Doubled(DistanceLayer):
        def call(self, inputs):
            return 2 * super().call(inputs)

    siamese = First(encoder_model()) if how == "a subclass" else SiameseWrapper(encoder_model())
    if how == "set by hand":
        siamese.compare = lambda a, b: -ops.sum(a * b, axis=1, keepdims=True)
    if how == "another distance layer":
        siamese.distance_layer = Doubled()
    siamese((x[:2], x[:2]))
    trials = Trials.of((x, LABELS))
    output = keras.ops.convert_to_numpy(siamese((x[trials.left], x[trials.right])))[:, 0]
    np.testing.assert_allclose(np.abs(score(dissect(siamese), trials).scores), np.abs(output), rtol=1e-5, atol=1e-6)


TWO_REPLICAS = """
import json, sys
import tensorflow as tf
(device,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(device, 2 * [tf.config.LogicalDeviceConfiguration()])
import keras, numpy as np, keras_siamese as ks
rng = np.random.default_rng(0)
labels = np.repeat(np.arange(50), 12)
x = (rng.normal(size=(50, 6))[labels] + rng.normal(size=(600, 6))).astype("float32")
weights = rng.normal(size=(6, 4)).astype("float32")
found = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    with strategy.scope():
        siamese = ks.SiameseWrapper(keras.Sequential([keras.Input((6,)), keras.layers.Dense(4, use_bias=False)]))
        siamese.compile("sgd", ks.losses.ContrastiveLoss())
        siamese.encoder.set_weights([weights])
    monitor = ks.callbacks.DivergenceMonitor((x, labels), on_divergence=lambda diagnosis: None)
    monitor.start(siamese)
    found.append([monitor.record(0, loss=1.0)[name] for name in ("val_eer", "val_auc")])
    found[-1].append(ks.diagnose(siamese, validation=(x, labels), train=(x, labels)).facts["eer"])
print(json.dumps(found))
"""


@pytest.mark.deep
@pytest.mark.tensorflow
def test_two_replicas_measure_what_one_device_does():
    """Each embeds every block; 600 items are more than one block."""
    one, two = fresh(TWO_REPLICAS)
    assert two == pytest.approx(one, abs=1e-6)


def test_rows_that_replicas_have_added_are_left_out(x):
    twice = embed(lambda block: np.concatenate([block, block + 1]), x, batch_size=8)
    np.testing.assert_array_equal(twice, x)


@pytest.mark.each_backend
@pytest.mark.parametrize("head", [None, "logistic"])
def test_scores_are_minus_the_distance_or_what_the_head_says(x, head):
    siamese = SiameseWrapper(encoder_model(), "euclidean", head=head)
    trials = Trials.of((x, LABELS))
    scored = score(siamese, trials)
    output = keras.ops.convert_to_numpy(siamese((x[trials.left], x[trials.right])))[:, 0]
    np.testing.assert_allclose(scored.scores, -output if head is None else output, atol=1e-5)
    assert scored.scores.dtype == np.float32
    z = scored.embeddings.astype(float)
    closer = np.linalg.norm(z[trials.left] - z[trials.right], axis=1)
    assert np.corrcoef(scored.scores, closer)[0, 1] < -0.8


def test_scores_do_not_depend_on_blocks_and_batches(x, monkeypatch):
    siamese, trials = SiameseWrapper(encoder_model()), Trials.of((x, LABELS))
    whole = score(siamese, trials).scores
    monkeypatch.setattr("keras_siamese.scoring.BLOCK", 100)
    np.testing.assert_allclose(score(siamese, trials, batch_size=7).scores, whole, atol=1e-6)


@pytest.mark.parametrize(("count", "most"), [(0, 3), (1, 3), (3, 3), (4, 3), (10, 4), (50_000, 8192), (7, 1)])
def test_blocks_have_one_length_and_cover_all_rows(count, most):
    blocks = [np.arange(count)[block] for block in equal_blocks(count, most)]
    assert set(np.concatenate([*blocks, np.arange(0)]).tolist()) == set(range(count))
    assert len({len(block) for block in blocks}) <= 1 and all(len(block) <= most for block in blocks)
    assert len(blocks) == -(-count // most)


@pytest.mark.each_backend
def test_embedding_is_inference(x):
    inputs = keras.Input((FEATURES,))
    encoder = keras.Model(inputs, layers.Dropout(0.9)(layers.BatchNormalization()(inputs)))
    before = [np.array(weight) for weight in encoder.get_weights()]
    np.testing.assert_allclose(embed(encoder, x), x / np.sqrt(1.001), rtol=1e-4)
    np.testing.assert_array_equal(np.concatenate(before), np.concatenate(encoder.get_weights()))


@pytest.mark.each_backend
@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16", FLOAT64])
def test_any_policy_gives_float32_embeddings_and_scores(x, policy):
    inputs = keras.Input((FEATURES,), dtype="float32")
    encoder = keras.Model(inputs, layers.Dense(3, dtype=policy)(inputs))
    scored = score(SiameseWrapper(encoder, "euclidean"), Trials.of((x, LABELS)))
    assert scored.embeddings.dtype == scored.scores.dtype == np.float32 and scored.is_finite


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_bad_embedding_shows_even_where_it_is_not_compared(x, bad):
    trials = Trials(x, np.array([0, 1]), np.array([1, 2]), np.array([True, False]), None)
    embeddings = x.copy()
    assert ScoredTrials(trials, embeddings, np.zeros(2, "float32")).is_finite
    embeddings[7, 0] = bad
    assert not ScoredTrials(trials, embeddings, np.zeros(2, "float32")).is_finite
    assert not ScoredTrials(trials, x, np.array([0.0, bad], "float32")).is_finite


def scored_at_random(labels, seed=0):
    rng = np.random.default_rng(seed)
    trials = Trials.of((rng.normal(size=(len(labels), 2)), labels))
    scores = (rng.normal(size=len(trials)) + 2 * trials.same).astype("float32")
    return ScoredTrials(trials, np.asarray(trials.items), scores)


def test_accuracy_is_cross_fitted_on_the_balanced_subset():
    scored = scored_at_random(np.repeat(np.arange(20), 6))
    rows = scored.trials.balanced()
    left, right = (side[rows] for side in scored.trials.pair_identities)
    expected = verification.cross_fitted_accuracy(scored.same[rows], scored.scores[rows], left, right)
    assert scored.accuracy == expected
    assert 0.7 < scored.accuracy[0] < 0.95 and 0.3 < scored.accuracy[1] < 1.7


@pytest.mark.parametrize("labels", [[0] * 20 + [1] * 20, [0] * 20 + [1, 2, 3], [0, 0, 0, 0, 1, 1, 1]])
def test_accuracy_of_too_few_identities_is_cross_fitted_over_pairs(labels):
    scored = scored_at_random(np.array(labels))
    rows = scored.trials.balanced()
    assert scored.accuracy == verification.cross_fitted_accuracy(scored.same[rows], scored.scores[rows])


def test_accuracy_of_too_few_pairs_is_nan_and_the_threshold_their_best():
    scored = scored_at_random(np.array([0, 0, 1]))
    accuracy, threshold = scored.accuracy
    assert np.isnan(accuracy) and np.isfinite(threshold)


# --- data that are given in another form than the model's


def test_samples_in_the_place_of_labels_are_refused(x):
    with pytest.raises(ValueError, match=r"`train` .* got samples of the shape \(4,\) .* as \(\(left, right\), y\)"):
        check_items("train", x, x)
    check_items("train", x, LABELS[:, None])
    check_items("train", LABELS[:, None], LABELS[:, None])  # one number for each sample


WRONG_DATA = {
    "(left, right, y) in batches": (lambda a, b, y: iter([(a, b, y)] * 2), "`validation` .* in the place of labels"),
    "(left, right) in batches": (lambda a, b, y: iter([(a, b)] * 2), "`validation` .* in the place of labels"),
    "single samples": (
        lambda a, b, y: zip(zip(a, b, strict=True), y, strict=True),
        r"must come in batches.*batch\(32\)",
    ),
    "numbers": (lambda a, b, y: iter(y.tolist()), "must come in batches"),
    "one input": (lambda a, b, y: (a, y), r"one input, with the labels 0 and 1 .* as \(\(left, right\), y\)"),
}


@pytest.mark.parametrize("name", WRONG_DATA)
def test_data_that_the_model_does_not_take_are_told(name):
    (left, right), (make, told) = batch(2), WRONG_DATA[name]
    with pytest.raises(ValueError, match=told):
        attach(PROGRAMS["operations"]()[0], make(left, right, np.arange(len(left)) % 2))


def test_direction_is_found_from_pairs_of_both_kinds():
    (left,) = batch(1)
    many = np.tile(left, (110, 1, 1))
    anatomy, _ = attach(PROGRAMS["operations"]()[0], (many, np.repeat([3, 4], len(many) // 2)))
    assert anatomy.direction.similar_label == 1  # drawn pairs begin with the genuine ones
