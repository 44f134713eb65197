"""`dissect` on models of every kind: what it finds, what it refuses, and that it compares as the model does."""

import keras
import numpy as np
import pytest
from keras import layers, ops

from keras_siamese.attach.anatomy import dissect
from keras_siamese.attach.orient import are_pairs
from keras_siamese.layers import DistanceLayer, SiameseWrapper
from tests.support.programs import PROGRAMS
from tests.support.two_inputs import FEATURES, encoder_model, two_towers


@pytest.fixture
def x(rng):
    return rng.normal(size=(30, FEATURES)).astype("float32")


def assert_compares_as(model, x):
    """The `Anatomy` of `model` gives the model's own output on pairs of rows."""
    anatomy, pair = dissect(model), [x[:15], x[15:]]
    mine = ops.convert_to_numpy(anatomy.compare(*anatomy.embed(pair)))
    np.testing.assert_allclose(mine, model.predict_on_batch(pair), atol=1e-5)
    return anatomy


# --- models of the package's parts


def test_a_wrapper_shows_its_parts(x):
    siamese = SiameseWrapper(encoder_model())
    anatomy = dissect(siamese)
    assert anatomy.wrapper is siamese and anatomy.encoder is siamese.encoder
    assert (anatomy.output_kind, anatomy.bounds) == (siamese.output_kind, siamese.bounds)
    assert dissect(siamese, encoder=siamese.encoder).wrapper is siamese


@pytest.mark.parametrize("distance", ["euclidean", "cosine", "manhattan"])
def test_a_functional_model_gives_its_encoder_and_distance(x, distance):
    encoder = encoder_model()
    anatomy = assert_compares_as(two_towers(lambda a, b: DistanceLayer(distance)([encoder(a), encoder(b)])), x)
    assert anatomy.encoder is encoder
    assert anatomy.output_kind == "distance"
    assert anatomy.wrapper.distance is anatomy.distance
    assert anatomy.scale_free == (distance == "cosine")


def test_layers_before_and_after_the_shared_encoder_come_along(x):
    scale, encoder, norm = layers.Rescaling(3.0, offset=1.0), encoder_model(), layers.LayerNormalization()
    model = two_towers(lambda a, b: DistanceLayer()([norm(encoder(scale(a))), norm(encoder(scale(b)))]))
    assert assert_compares_as(model, x).encoder is not encoder


@pytest.mark.each_backend
def test_a_branching_encoder_without_a_model_around_it_is_found(x):
    first, second, join = layers.Dense(3), layers.Dense(3, activation="tanh"), layers.Add()

    def tower(inputs):
        return join([first(inputs), second(first(inputs))])

    # Each call of `first` is a node of its own, and both towers have two.
    assert assert_compares_as(two_towers(lambda a, b: DistanceLayer()([tower(a), tower(b)])), x).other is None


@pytest.mark.parametrize("head", ["dense", "none", "reshaped"])
def test_a_layer_with_weights_on_the_distance_is_the_head(x, head):
    encoder = encoder_model()
    last = {
        "dense": layers.Dense(1, activation="sigmoid", kernel_initializer=keras.initializers.Constant(-2.0)),
        "none": layers.Identity(),
        "reshaped": layers.Activation("linear", dtype="float32"),
    }[head]
    anatomy = assert_compares_as(two_towers(lambda a, b: last(DistanceLayer()([encoder(a), encoder(b)]))), x)
    assert anatomy.head is (last if head == "dense" else None)
    assert anatomy.output_kind == ("score" if head == "dense" else "distance")


def test_a_distance_turned_into_a_similarity_is_a_score(x):
    encoder = encoder_model()
    anatomy = assert_compares_as(two_towers(lambda a, b: ops.exp(-DistanceLayer()([encoder(a), encoder(b)]))), x)
    assert anatomy.wrapper is None and anatomy.output_kind == "score"
    assert type(anatomy.distance).__name__ == "EuclideanDistance"


def test_a_functional_triplet_model_gives_its_encoder(x):
    encoder = encoder_model()
    inputs = [keras.Input((FEATURES,)) for _ in range(3)]
    a, p, n = (encoder(one) for one in inputs)
    at_once = keras.Model(inputs, DistanceLayer()([a, p, n]))
    distance = DistanceLayer("cosine")
    in_turn = keras.Model(inputs, layers.Concatenate()([distance([a, p]), distance([a, n])]))
    for model in (at_once, in_turn):
        anatomy = dissect(model)
        assert anatomy.encoder is encoder
        mine = ops.convert_to_numpy(anatomy.compare(*anatomy.embed([x[:10], x[10:20]])))[:, 0]
        np.testing.assert_allclose(mine, model.predict_on_batch([x[:10], x[10:20], x[20:]])[:, 0], atol=1e-5)


@pytest.mark.parametrize("connect", [lambda inner, pair: inner(pair), lambda inner, pair: ops.sigmoid(inner(pair))])
def test_a_wrapper_inside_a_functional_model_is_opened(x, connect):
    inner = SiameseWrapper(encoder_model())
    anatomy = assert_compares_as(two_towers(lambda a, b: connect(inner, [a, b])), x)
    assert anatomy.encoder is inner.encoder and type(anatomy.distance).__name__ == "EuclideanDistance"


# --- encoders


def test_an_encoder_is_compared_by_cosine_or_as_told(x):
    encoder = encoder_model()
    assert type(dissect(encoder).distance).__name__ == "CosineDistance"
    assert type(dissect(encoder, distance="euclidean").distance).__name__ == "EuclideanDistance"
    assert dissect(encoder).encoder is encoder


class SubclassedEncoder(keras.Model):
    def __init__(self, dim=3):
        super().__init__()
        self.dense = layers.Dense(dim)

    def call(self, inputs):
        return self.dense(inputs)


def test_an_encoder_that_does_not_know_its_shape_is_asked(x):
    encoder = SubclassedEncoder()
    with pytest.raises(ValueError, match="Pass `encoder=`"):
        dissect(encoder)
    assert dissect(encoder, x).encoder is encoder
    unbuilt = keras.Sequential([layers.Dense(3)])
    assert dissect(unbuilt, x).encoder is unbuilt


def test_an_encoder_of_a_dict_is_told_from_two_towers(x):
    a, b = keras.Input((FEATURES,), name="a"), keras.Input((FEATURES,), name="b")
    encoder = keras.Model({"a": a, "b": b}, layers.Dense(3)(layers.Add()([a, b])))
    items = {"a": x, "b": x}
    assert not are_pairs(encoder, items)
    assert dissect(encoder, items, encoder=encoder).encoder is encoder


# --- what is refused


def test_what_contradicts_the_model_is_refused(x):
    siamese, other = SiameseWrapper(encoder_model()), encoder_model("other")
    with pytest.raises(ValueError, match=r"`encoder` must be None for .* which has its own"):
        dissect(siamese, encoder=other)
    with pytest.raises(ValueError, match="`distance` must be None"):
        dissect(siamese, distance="cosine")
    encoder = encoder_model()
    model = two_towers(lambda a, b: DistanceLayer()([encoder(a), encoder(b)]))
    with pytest.raises(ValueError, match="`distance` must be None"):
        dissect(model, distance="cosine")
    with pytest.raises(ValueError, match="must be a part of 'towers'; 2 of the 2 weights of 'other' are not in it"):
        dissect(model, encoder=other)


@pytest.mark.parametrize(
    "make",
    [
        lambda: keras.Sequential([keras.Input((FEATURES,)), layers.Dense(1)]),
        lambda: keras.Sequential([keras.Input((FEATURES, 2)), layers.Dense(3)]),
    ],
)
def test_models_that_neither_compare_nor_embed_are_refused(make):
    with pytest.raises(ValueError, match=r"No encoder found .* Pass `encoder=`"):
        dissect(make())


def test_what_is_no_model_is_refused():
    with pytest.raises(TypeError, match="`model` must be a Keras model or layer; got 'encoder.keras' of type str"):
        dissect("encoder.keras")


class SubclassThatReadsValues(keras.Model):
    """Its call cannot be traced: it reads the values of a tensor."""

    def __init__(self):
        super().__init__()
        self.first, self.second = layers.Dense(3, name="first"), layers.Dense(1, name="second")

    def call(self, inputs):
        left, right = inputs
        if float(ops.convert_to_numpy(self.first(left)).sum()) > 0:
            return self.second(left)
        return self.second(right)


def test_an_error_shows_what_was_understood_and_the_ways_out(x):
    with pytest.raises(ValueError, match=r"understood: input \(None, 4\) → dense\w*; output \(None, 1\)\. Pass `enc"):
        dissect(keras.Sequential([keras.Input((FEATURES,)), layers.Dense(1)]))
    with pytest.raises(ValueError, match=r"reaches first, and then it cannot be traced .*or `score=`"):
        dissect(SubclassThatReadsValues(), [x, x[:, :3]])
    with pytest.raises(ValueError, match=r"it is a subclass, whose call is traced with a few rows of its input"):
        dissect(SubclassThatReadsValues())


def test_a_score_of_the_user_stands_for_the_model(x):
    anatomy = dissect(SubclassThatReadsValues(), score=lambda left, right: (left * right).sum(axis=1))
    assert not anatomy.has_embeddings and anatomy.towers == () and anatomy.learned == []
    np.testing.assert_allclose(anatomy.compare(*anatomy.embed([x, x]))[:, 0], (x * x).sum(axis=1), rtol=1e-6)
    assert anatomy.are_pairs([x, x]) and not anatomy.are_pairs(x)
    assert "the function that was given" in str(anatomy)
    with pytest.raises(ValueError, match=r"`score` must return 30 numbers for 30 pairs, one each; got shape \(30, 4\)"):
        dissect(encoder_model(), score=lambda left, right: left).compare(x, x)
    with pytest.raises(TypeError, match="`score` must be a function"):
        dissect(encoder_model(), score="cosine")


# --- forms of other people


def test_two_encoders_are_told_apart(x):
    one, other = encoder_model("one"), encoder_model("other")
    anatomy = assert_compares_as(two_towers(lambda a, b: DistanceLayer()([one(a), other(b)])), x)
    assert (anatomy.encoder, anatomy.other) == (one, other) == anatomy.towers
    assert isinstance(anatomy.comparator, keras.Model)


@pytest.mark.parametrize("name", ["concatenated_embeddings", "stacked_embeddings", "list_of_embeddings"])
def test_a_model_that_compares_in_its_loss_gets_a_distance(name):
    model, x = PROGRAMS[name]()
    anatomy = dissect(model, x)
    assert type(anatomy.distance).__name__ == "EuclideanDistance"
    assert "comparator: none in the model" in str(anatomy)
    assert type(dissect(model, x, distance="cosine").distance).__name__ == "CosineDistance"


def test_the_second_class_and_the_comparing_output_are_the_score():
    model, x = PROGRAMS["two_classes"]()
    anatomy = dissect(model, x)
    mine = ops.convert_to_numpy(anatomy.compare(*anatomy.embed(x)))[:, 0]
    np.testing.assert_allclose(mine, model.predict_on_batch(x)[:, 1], rtol=1e-5)
    model, x = PROGRAMS["auxiliary_output"]()
    anatomy = dissect(model, x)
    np.testing.assert_allclose(
        ops.convert_to_numpy(anatomy.compare(*anatomy.embed(x))), model.predict_on_batch(x)[1], rtol=1e-5
    )


def test_it_prints_what_it_found():
    model, x = PROGRAMS["absolute_difference"]()
    lines = str(dissect(model, x)).splitlines()
    assert [line.split(": ")[0].strip() for line in lines[1:]] == [
        "tower",
        "comparator",
        "learned after the comparison",
        "score",
    ]
    assert lines[1].endswith("tower, the same on each side")
    model, x = PROGRAMS["joined_at_once"]()
    anatomy = dissect(model, x)
    assert "no embeddings" in str(anatomy) and not anatomy.has_embeddings
