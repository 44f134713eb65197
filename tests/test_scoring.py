"""From a model to scores: the encoder that is found or refused, the pairs that are drawn, one embedding an item."""

import keras
import numpy as np
import pytest
from keras import layers

from keras_siamese import verification
from keras_siamese.layers import DistanceLayer, SiameseWrapper
from keras_siamese.scoring import (
    ScoredTrials,
    Trials,
    as_siamese,
    embed,
    score,
)

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


def two_towers(connect):
    """A functional model of two inputs; `connect(left, right)` gives its output."""
    left, right = keras.Input((FEATURES,), name="left"), keras.Input((FEATURES,), name="right")
    return keras.Model([left, right], connect(left, right), name="towers")


class SubclassedEncoder(keras.Model):
    def __init__(self, dim=3):
        super().__init__()
        self.dense = layers.Dense(dim)

    def call(self, inputs):
        return self.dense(inputs)


class SubclassedTowers(keras.Model):
    def __init__(self):
        super().__init__()
        self.encoder = layers.Dense(3)

    def call(self, inputs):
        left, right = inputs
        return keras.ops.sum(keras.ops.square(self.encoder(left) - self.encoder(right)), axis=1, keepdims=True)


# --- the encoder: found


def assert_compares_as(model, siamese, x, kind="distance"):
    """`siamese` gives the model's own output on pairs of rows, and scores have the sign of similarity."""
    left, right = np.arange(15), np.arange(15, 30)
    trials = Trials(x, left, right, np.arange(15) < 5, None)
    output = model.predict_on_batch([x[left], x[right]])[:, 0]
    assert siamese.output_kind == kind
    np.testing.assert_allclose(score(siamese, trials).scores, -output if kind == "distance" else output, atol=1e-5)


def test_a_wrapper_is_taken_as_it_is(x):
    siamese = SiameseWrapper(encoder_model())
    assert as_siamese(siamese) is siamese
    assert as_siamese(siamese, siamese.encoder) is siamese


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "manhattan"])
def test_a_functional_model_gives_its_encoder_and_distance(x, distance):
    encoder = encoder_model()
    model = two_towers(lambda a, b: DistanceLayer(distance)([encoder(a), encoder(b)]))
    siamese = as_siamese(model)
    assert siamese.encoder is encoder
    assert_compares_as(model, siamese, x)


def test_a_layer_is_an_encoder_too(x):
    dense = layers.Dense(3)
    model = two_towers(lambda a, b: DistanceLayer()([dense(a), dense(b)]))
    assert as_siamese(model).encoder is dense
    assert_compares_as(model, as_siamese(model), x)


def test_layers_before_and_after_the_shared_encoder_come_along(x):
    scale, encoder, norm = layers.Rescaling(3.0, offset=1.0), encoder_model(), layers.LayerNormalization()
    model = two_towers(lambda a, b: DistanceLayer()([norm(encoder(scale(a))), norm(encoder(scale(b)))]))
    siamese = as_siamese(model)
    assert siamese.encoder is not encoder
    assert_compares_as(model, siamese, x)


@pytest.mark.each_backend
def test_a_branching_encoder_without_a_model_around_it_is_found(x):
    first, second, join = layers.Dense(3), layers.Dense(3, activation="tanh"), layers.Add()

    def tower(inputs):
        return join([first(inputs), second(first(inputs))])

    model = two_towers(lambda a, b: DistanceLayer()([tower(a), tower(b)]))
    # Each call of `first` is a node of its own, and both towers have two.
    assert_compares_as(model, as_siamese(model), x)


@pytest.mark.parametrize("head", ["dense", "none", "reshaped"])
def test_a_layer_with_weights_on_the_distance_is_the_head(x, head):
    encoder = encoder_model()
    last = {
        "dense": layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.Constant(-2.0)),
        "none": layers.Identity(),
        "reshaped": layers.Activation("linear", dtype="float32"),
    }[head]
    model = two_towers(lambda a, b: last(DistanceLayer()([encoder(a), encoder(b)])))
    siamese = as_siamese(model)
    assert siamese.head is (last if head == "dense" else None)
    assert_compares_as(model, siamese, x, kind="score" if head == "dense" else "distance")


def test_other_outputs_do_not_hide_the_distance(x):
    encoder = encoder_model()

    def outputs(a, b):
        first, second = encoder(a), encoder(b)
        return [DistanceLayer()([first, second]), first]

    assert as_siamese(two_towers(outputs)).encoder is encoder


def test_a_functional_triplet_model_gives_its_encoder(x):
    encoder = encoder_model()
    inputs = [keras.Input((FEATURES,)) for _ in range(3)]
    a, p, n = (encoder(one) for one in inputs)
    at_once = keras.Model(inputs, DistanceLayer()([a, p, n]))
    distance = DistanceLayer("cosine")
    in_turn = keras.Model(inputs, layers.Concatenate()([distance([a, p]), distance([a, n])]))
    assert as_siamese(at_once).encoder is as_siamese(in_turn).encoder is encoder
    assert type(as_siamese(in_turn).distance).__name__ == "CosineDistance"


def test_a_wrapper_inside_a_functional_model_is_found(x):
    inner = SiameseWrapper(encoder_model())
    model = two_towers(lambda a, b: inner([a, b]))
    assert as_siamese(model) is inner


def test_an_encoder_is_compared_by_cosine_or_as_told(x):
    encoder = encoder_model()
    assert type(as_siamese(encoder).distance).__name__ == "CosineDistance"
    assert type(as_siamese(encoder, distance="euclidean").distance).__name__ == "EuclideanDistance"
    assert as_siamese(encoder).encoder is encoder


def test_an_encoder_that_does_not_know_its_shape_is_asked(x):
    encoder = SubclassedEncoder()
    with pytest.raises(ValueError, match="Pass `encoder=`"):
        as_siamese(encoder)
    assert as_siamese(encoder, items=x).encoder is encoder
    unbuilt = keras.Sequential([layers.Dense(3)])
    assert as_siamese(unbuilt, items=x).encoder is unbuilt


def test_an_encoder_of_a_dict_is_told_from_two_towers(x):
    a, b = keras.Input((FEATURES,), name="a"), keras.Input((FEATURES,), name="b")
    encoder = keras.Model({"a": a, "b": b}, layers.Dense(3)(layers.Add()([a, b])))
    assert as_siamese(encoder, items={"a": x, "b": x}).encoder is encoder
    with pytest.raises(ValueError, match="No encoder found"):
        as_siamese(encoder, items=x)


def test_the_encoder_given_is_used_with_the_models_own_distance(x):
    model = SubclassedTowers()
    model((x, x))
    siamese = as_siamese(model, model.encoder, "euclidean")
    assert siamese.encoder is model.encoder
    one, other = encoder_model("one"), encoder_model("other")
    unshared = two_towers(lambda a, b: DistanceLayer("manhattan")([one(a), other(b)]))
    assert type(as_siamese(unshared, other).distance).__name__ == "ManhattanDistance"


# --- the encoder: refused


def unshared():
    one, other = encoder_model("one"), encoder_model("other")
    return two_towers(lambda a, b: DistanceLayer()([one(a), other(b)]))


def one_tower_preprocessed():
    encoder = encoder_model()
    return two_towers(lambda a, b: DistanceLayer()([encoder(layers.Rescaling(2.0)(a)), encoder(b)]))


def one_tower_further():
    encoder = encoder_model()
    return two_towers(lambda a, b: DistanceLayer()([encoder(a), layers.Dense(3)(encoder(b))]))


def unlike_order():
    first, second = layers.Dense(FEATURES), layers.Dense(FEATURES)
    return two_towers(lambda a, b: DistanceLayer()([second(first(a)), first(second(b))]))


def concatenated_embeddings():
    encoder = encoder_model()
    return two_towers(lambda a, b: layers.Concatenate()([encoder(a), encoder(b)]))


def hand_made_distance():
    encoder = encoder_model()
    return two_towers(lambda a, b: layers.Dot(axes=1)([encoder(a), encoder(b)]))


@pytest.mark.parametrize(
    "make",
    [
        unshared,
        one_tower_preprocessed,
        one_tower_further,
        unlike_order,
        concatenated_embeddings,
        hand_made_distance,
        SubclassedTowers,
        lambda: keras.Sequential([keras.Input((FEATURES,)), layers.Dense(1)]),
        lambda: keras.Sequential([keras.Input((FEATURES, 2)), layers.Dense(3)]),
        lambda: "a string",
    ],
)
def test_models_without_one_shared_encoder_are_refused(make, x):
    with pytest.raises(ValueError, match=r"No encoder found .* Pass `encoder=`"):
        as_siamese(make(), items=x)


def test_what_contradicts_the_model_is_refused(x):
    siamese, other = SiameseWrapper(encoder_model()), encoder_model("other")
    with pytest.raises(ValueError, match=r"`encoder` must be None for .* which has its own"):
        as_siamese(siamese, other)
    with pytest.raises(ValueError, match="`distance` must be None"):
        as_siamese(siamese, distance="cosine")
    encoder = encoder_model()
    model = two_towers(lambda a, b: DistanceLayer()([encoder(a), encoder(b)]))
    with pytest.raises(ValueError, match="`distance` must be None"):
        as_siamese(model, distance="cosine")
    with pytest.raises(ValueError, match="must be a part of 'towers'; 2 of the 2 weights of 'other' are not in it"):
        as_siamese(model, other)
    mixed = two_towers(lambda a, b: [DistanceLayer(kind)([encoder(a), encoder(b)]) for kind in ("euclidean", "cosine")])
    with pytest.raises(ValueError, match=r"compare embeddings by one distance; got EuclideanDistance.*CosineDistance"):
        as_siamese(mixed)


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


def test_each_item_is_embedded_once(x):
    encoder = Counting()
    siamese = SiameseWrapper(encoder, "euclidean")
    siamese((x[:2], x[:2]))
    encoder.rows.clear()
    scored = score(siamese, Trials.of((x, LABELS)), batch_size=8)
    assert encoder.rows == [8, 8, 8, 6] and len(scored.scores) == 435
    np.testing.assert_allclose(scored.embeddings, x, rtol=1e-6)


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
