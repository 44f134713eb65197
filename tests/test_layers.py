"""The siamese model and its layers: towers, inputs of every kind, masks, precision, heads, `fit`, refused input."""

import json

import keras
import numpy as np
import oracles_core as oracles
import pytest
from gradients import gradient
from keras import ops

import keras_siamese as ks
from keras_siamese.layers import DistanceLayer, LogisticHead, SiameseWrapper
from keras_siamese.losses import ContrastiveLoss, TripletLoss, WeightedBinaryCrossentropy

BACKEND = keras.backend.backend()
N, DIM = 6, 3
SAME = np.array([1, 0, 1, 1, 0, 0])


def array(tensor):
    return ops.convert_to_numpy(tensor)


def towers(rng, *shape, count=2):
    return [rng.normal(size=(N, *shape)).astype("float32") for _ in range(count)]


def dense_encoder(*tail):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(DIM), *tail])


def embeddings(model, *inputs):
    """What the encoder makes of each input by itself."""
    return [array(model.encoder(one, training=False)).astype("float64") for one in inputs]


def euclidean(a, b):
    return np.array(oracles.rowwise(oracles.euclidean, a, b))[:, None]


# Inputs and towers


@pytest.mark.parametrize("joint", [True, False])
def test_two_inputs_are_the_distance_of_their_embeddings(joint, rng):
    left, right = towers(rng, 4)
    model = SiameseWrapper(dense_encoder(), joint=joint)
    expected = euclidean(*embeddings(model, left, right))
    for pair in ((left, right), [left, right]):
        assert tuple(model(pair).shape) == (N, 1)
        np.testing.assert_allclose(array(model(pair)), expected, rtol=1e-4)
    np.testing.assert_allclose(model.predict((left, right), batch_size=4, verbose=0), expected, rtol=1e-4)


@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("distance", ["euclidean", "snr"])
def test_three_inputs_are_anchor_positive_and_anchor_negative(joint, distance, rng):
    anchor, positive, negative = towers(rng, 4, count=3)
    model = SiameseWrapper(dense_encoder(), distance, joint=joint)
    got = array(model((anchor, positive, negative)))
    assert got.shape == (N, 2)
    a, p, n = embeddings(model, anchor, positive, negative)
    oracle = oracles.DISTANCES[distance]
    np.testing.assert_allclose(got[:, 0], oracles.rowwise(oracle, a, p), rtol=1e-3)
    np.testing.assert_allclose(got[:, 1], oracles.rowwise(oracle, a, n), rtol=1e-3)


def test_distance_may_be_asymmetric(rng):
    left, right = towers(rng, 4)
    model = SiameseWrapper(dense_encoder(), "snr")
    a, b = embeddings(model, left, right)
    np.testing.assert_allclose(array(model((left, right)))[:, 0], oracles.rowwise(oracles.snr, a, b), rtol=1e-3)


def normalise(x, epsilon):
    return (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + epsilon)


def test_joint_towers_share_their_batch_statistics(rng):
    left, right = towers(rng, 4)
    right = 3 * right + 1
    batch_norm = keras.layers.BatchNormalization(epsilon=1e-3)
    encoder = keras.Sequential([keras.Input((4,)), batch_norm])
    both = normalise(np.concatenate([left, right]), 1e-3)
    joint = array(SiameseWrapper(encoder)((left, right), training=True))
    np.testing.assert_allclose(joint, euclidean(both[:N], both[N:]), rtol=1e-3)
    apart = array(SiameseWrapper(encoder, joint=False)((left, right), training=True))
    np.testing.assert_allclose(apart, euclidean(normalise(left, 1e-3), normalise(right, 1e-3)), rtol=1e-3)
    assert not np.allclose(joint, apart, rtol=0.05)
    frozen = [array(SiameseWrapper(encoder, joint=form)((left, right), training=False)) for form in (True, False)]
    np.testing.assert_allclose(*frozen, rtol=1e-5)


def two_input_encoder(container):
    """(6,) and (5, 2) in, (3,) out; its inputs named in a dict or in a list."""
    image, sound = keras.Input((6,), name="image"), keras.Input((5, 2), name="sound")
    both = keras.layers.concatenate([image, keras.layers.GlobalAveragePooling1D()(sound)])
    inputs = {"image": image, "sound": sound} if container is dict else [image, sound]
    return keras.Model(inputs, keras.layers.Dense(DIM)(both))


@pytest.mark.parametrize("container", [dict, list])
@pytest.mark.parametrize("joint", [True, False])
def test_encoders_with_several_inputs(container, joint, rng):
    pair = []
    for _ in range(2):
        image, sound = rng.normal(size=(N, 6)).astype("float32"), rng.normal(size=(N, 5, 2)).astype("float32")
        pair.append({"image": image, "sound": sound} if container is dict else [image, sound])
    model = SiameseWrapper(two_input_encoder(container), joint=joint)
    expected = euclidean(*embeddings(model, *pair))
    np.testing.assert_allclose(array(model(tuple(pair))), expected, rtol=1e-4)
    np.testing.assert_allclose(model.predict(tuple(pair), batch_size=N, verbose=0), expected, rtol=1e-4)
    again = SiameseWrapper.from_config(model.get_config())
    again.build_from_config(json.loads(json.dumps(model.get_build_config())))
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(array(again(tuple(pair))), expected, rtol=1e-4)


class Nested(keras.layers.Layer):
    """A functional model inside a layer without shape inference, as people write encoders."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = keras.Sequential([keras.layers.Dense(5, activation="relu"), keras.layers.Dense(DIM)])

    def call(self, x):
        return self.inner(x)


class Subclassed(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.hidden, self.out = keras.layers.Dense(5, activation="relu"), keras.layers.Dense(DIM)

    def call(self, x, training=False):
        return self.out(self.hidden(x))


ENCODERS = {
    "subclassed model": Subclassed,
    "subclassed layer": Nested,
    "layer": lambda: keras.layers.Dense(DIM),
    "unbuilt sequential": lambda: keras.Sequential([keras.layers.Dense(5), keras.layers.Dense(DIM)]),
    "built sequential": dense_encoder,
    "functional": lambda: keras.Model(x := keras.Input((4,)), dense_encoder()(x)),
}


@pytest.mark.parametrize("kind", ENCODERS)
def test_encoders_of_every_kind(kind, rng):
    left, right = towers(rng, 4)
    model = SiameseWrapper(ENCODERS[kind]())
    got = array(model((left, right)))
    np.testing.assert_allclose(got, euclidean(*embeddings(model, left, right)), rtol=1e-4)
    assert model.encoder.weights
    assert {id(weight) for weight in model.encoder.weights} <= {id(weight) for weight in model.weights}
    if isinstance(model.encoder, Subclassed | Nested):
        model.compile("adam", loss=ContrastiveLoss(), run_eagerly=BACKEND == "tensorflow")
        model.fit((left, right), SAME, verbose=0)


def test_unbuilt_encoder_is_built_for_any_batch(rng):
    model = SiameseWrapper(ENCODERS["unbuilt sequential"]())
    model(tuple(towers(rng, 4)))
    assert model.encoder.input_shape == (None, 4)


@pytest.mark.parametrize("shape", [(8, 2), (6, 6, 1)])
@pytest.mark.parametrize("joint", [True, False])
def test_inputs_of_higher_rank(shape, joint, rng):
    left, right = towers(rng, *shape)
    layers = keras.layers
    pool = [layers.Conv1D(3, 3), layers.GlobalMaxPooling1D()] if len(shape) == 2 else [layers.Conv2D(2, 3)]
    encoder = keras.Sequential([keras.Input(shape), *pool, layers.Flatten(), layers.Dense(DIM)])
    model = SiameseWrapper(encoder, joint=joint)
    np.testing.assert_allclose(
        array(model((left, right))), euclidean(*embeddings(model, left, right)), rtol=1e-4, atol=1e-5
    )


# Masks


def masked_encoder():
    layers = keras.layers
    return keras.Sequential(
        [keras.Input((7,), dtype="int32"), layers.Embedding(9, 4, mask_zero=True), layers.LSTM(DIM)]
    )


class LeakyMean(keras.layers.Layer):
    """Mean over the steps that are not masked, which hands the mask (batch, steps) on to its output (batch, dim)."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        weight = ops.expand_dims(ops.ones_like(x[..., 0]) if mask is None else ops.cast(mask, x.dtype), -1)
        return ops.sum(x * weight, axis=1) / ops.maximum(ops.sum(weight, axis=1), 1.0)

    def compute_output_shape(self, shape):
        return (shape[0], shape[2])


def leaky_encoder():
    layers = keras.layers
    return keras.Sequential([keras.Input((7,), dtype="int32"), layers.Embedding(9, 4, mask_zero=True), LeakyMean()])


def sequences(rng):
    """Padded with zeros to lengths between 1 and 7, so that each row has another mask."""
    pair = rng.integers(1, 9, (2, N, 7)).astype("int32")
    for side in pair:
        for row, length in zip(side, rng.integers(1, 8, N), strict=True):
            row[length:] = 0
    return tuple(pair)


class Ask(keras.layers.Layer):
    """Remembers the mask that Keras finds on its input."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.supports_masking = True

    def call(self, x, mask=None):
        self.seen = mask
        return x


def mask_of(tensor):
    ask = Ask()
    ask(tensor)
    return ask.seen


@pytest.mark.parametrize(("make", "joint"), [(masked_encoder, True), (leaky_encoder, True), (leaky_encoder, False)])
def test_masks_work_inside_and_do_not_reweight_the_loss(make, joint, rng):
    left, right = sequences(rng)
    model = SiameseWrapper(make(), joint=joint)
    output = model((left, right))
    assert mask_of(output) is None
    expected = euclidean(*embeddings(model, left, right))
    np.testing.assert_allclose(array(output), expected, rtol=1e-4, atol=1e-6)
    loss = ContrastiveLoss()
    terms = [oracles.contrastive(s, d) for s, d in zip(SAME, expected[:, 0], strict=True)]
    assert array(loss(SAME, output)) == pytest.approx(oracles.mean(terms), rel=1e-4)
    model.compile("sgd", loss=loss)
    assert model.evaluate((left, right), SAME, verbose=0) == pytest.approx(oracles.mean(terms), rel=1e-4)


def test_padding_does_not_change_the_embedding(rng):
    """The masks reach the encoder in one run over both towers: other tokens under the mask would change the value."""
    left, right = sequences(rng)
    model = SiameseWrapper(leaky_encoder())
    table = model.encoder.layers[0].get_weights()[0]
    means = [[table[row[row > 0]].mean(axis=0) for row in side] for side in (left, right)]
    np.testing.assert_allclose(array(model((left, right))), euclidean(*means), rtol=1e-4, atol=1e-6)


def test_encoder_does_leak_its_mask(rng):
    """What the tests above guard against."""
    left, _ = sequences(rng)
    np.testing.assert_array_equal(array(mask_of(leaky_encoder()(left))), left > 0)


@pytest.mark.filterwarnings("ignore:.*does not support masking")  # Keras says so of every functional model
@pytest.mark.parametrize("joint", [True, False])
@pytest.mark.parametrize("masked", ["both", "left", "first input"])
def test_masks_that_come_with_the_inputs(joint, masked, rng):
    """A Masking layer in front of the towers; a tower, or an input of a tower, may have none."""
    two = masked == "first input"
    steps, extra = keras.Input((5, 2), name="steps"), keras.Input((2,), name="extra")
    pooled = LeakyMean()(steps)
    encoder = keras.Model({"steps": steps, "extra": extra}, pooled + extra) if two else keras.Model(steps, pooled)
    model = SiameseWrapper(encoder, joint=joint)
    inputs = [keras.Input((5, 2)), keras.Input((5, 2))]
    mask_value = keras.layers.Masking()
    heads = [mask_value(x) if i == 0 or masked != "left" else x for i, x in enumerate(inputs)]
    extras = [keras.Input((2,)), keras.Input((2,))]
    pair = [{"steps": h, "extra": e} for h, e in zip(heads, extras, strict=True)] if two else heads
    whole = keras.Model(inputs + extras if two else inputs, model(pair))
    x = rng.normal(size=(2, N, 5, 2)).astype("float32")
    more = rng.normal(size=(2, N, 2)).astype("float32")
    x[:, ::2, 3:] = 0.0
    means = []
    for i, side in enumerate(x):
        use_mask = i == 0 or masked != "left"
        means.append([row[row.any(axis=1)].mean(axis=0) if use_mask else row.mean(axis=0) for row in side])
    expected = euclidean(*[np.array(m) + (more[i] if two else 0) for i, m in enumerate(means)])
    given = [*x, *more] if two else [*x]
    np.testing.assert_allclose(array(whole(given)), expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("joint", [True, False])
def test_a_mask_on_the_inputs_does_not_come_out(joint, rng):
    x = rng.normal(size=(2, N, 5, 2)).astype("float32")
    x[:, ::2, 3:] = 0.0
    masked = [keras.layers.Masking()(side) for side in x]
    assert mask_of(masked[0]) is not None
    assert mask_of(SiameseWrapper(LeakyMean(), joint=joint)(masked)) is None


# As a layer


def test_inside_a_functional_model(rng, tmp_path):
    left, right = towers(rng, 4)
    inputs = [keras.Input((4,)), keras.Input((4,))]
    siamese = SiameseWrapper(dense_encoder())
    distance = siamese(inputs)
    assert tuple(distance.shape) == (None, 1)
    whole = keras.Model(inputs, keras.layers.Dense(1, activation="sigmoid")(distance))
    expected = whole.predict([left, right], verbose=0)
    whole.compile("adam", loss="binary_crossentropy")
    kernel = siamese.encoder.layers[0].get_weights()[0].copy()
    whole.fit([left, right], SAME, verbose=0)
    assert not np.allclose(siamese.encoder.layers[0].get_weights()[0], kernel)
    whole.save(tmp_path / "whole.keras")
    again = keras.saving.load_model(tmp_path / "whole.keras", safe_mode=True)
    now = whole.predict([left, right], verbose=0)
    np.testing.assert_allclose(again.predict([left, right], verbose=0), now, rtol=1e-5)
    assert not np.allclose(now, expected, rtol=1e-5)


def test_of_a_siamese_model_as_encoder_of_triplets_and_pairs(rng):
    """One model serves pairs and triplets, whichever it saw first."""
    a, b, c = towers(rng, 4, count=3)
    model = SiameseWrapper(dense_encoder())
    pair, triplet = array(model((a, b))), array(model((a, c, b)))
    np.testing.assert_allclose(pair[:, 0], triplet[:, 1], rtol=1e-5)


# Precision


@pytest.mark.parametrize(("policy", "head"), [("mixed_float16", None), ("mixed_bfloat16", "logistic")])
def test_mixed_precision(policy, head, rng):
    left, right = towers(rng, 4)
    previous = keras.config.dtype_policy()
    keras.config.set_dtype_policy(policy)
    try:
        model = SiameseWrapper(dense_encoder(), "squared_euclidean", head=head)
        output = model((left, right))
        loss = ContrastiveLoss() if head is None else WeightedBinaryCrossentropy()
        model.compile(keras.optimizers.SGD(0.01), loss=loss)
        history = model.fit((left, right), SAME, verbose=0).history
    finally:
        keras.config.set_dtype_policy(previous)
    assert keras.backend.standardize_dtype(output.dtype) == "float32"
    assert np.isfinite(history["loss"]).all()
    assert model.encoder.compute_dtype == policy.removeprefix("mixed_")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision_does_not_narrow_the_distance(policy):
    a, b = np.full((1, 4), 1.0, "float32"), np.full((1, 4), 1.0001, "float32")
    layer = DistanceLayer("euclidean", dtype=policy)
    assert array(layer([a, b]))[0, 0] == pytest.approx(2e-4, rel=1e-2)
    assert array(layer([a, 1e5 * b]))[0, 0] == pytest.approx(2e5, rel=1e-3)
    far = ops.cast(np.full((1, 4), 300.0), policy.removeprefix("mixed_"))
    assert array(DistanceLayer("squared_euclidean", dtype=policy)([far, -far]))[0, 0] == pytest.approx(4 * 600.0**2)
    head = LogisticHead(0.0, 2.0, dtype=policy)
    probability = array(head(np.array([[1.0001]], "float32")))
    assert probability.dtype == "float32"
    assert 0.5 - probability[0, 0] == pytest.approx(4.6e-4 / 4, rel=1e-2)


@pytest.mark.skipif(BACKEND == "torch", reason="Keras compiles with jit on TensorFlow and JAX")
@pytest.mark.parametrize("joint", [True, False])
def test_compiled_with_xla(joint, rng):
    left, right = towers(rng, 4)
    model = SiameseWrapper(dense_encoder(keras.layers.UnitNormalization()), "cosine", head="logistic", joint=joint)
    model.compile(keras.optimizers.SGD(0.1), loss=WeightedBinaryCrossentropy("balanced"), jit_compile=True)
    before = array(model((left, right)))
    np.testing.assert_allclose(model.predict((left, right), verbose=0), before, rtol=1e-4)
    assert np.isfinite(model.fit((left, right), SAME, epochs=2, verbose=0).history["loss"]).all()
    assert not np.allclose(array(model((left, right))), before, rtol=1e-4)


# Heads


def test_logistic_head_falls_with_the_distance_whatever_it_learned():
    distance = np.linspace(0.0, 2.0, 9, dtype="float32")[:, None]
    head = LogisticHead(0.0, 2.0)
    start = array(head(distance))[:, 0]
    np.testing.assert_allclose(start[[0, 4, 8]], [0.99, 0.5, 0.01], atol=1e-3)
    for log_slope, offset in [(-3.0, -1.0), (2.0, 4.0), (-8.0, 0.0)]:
        head.set_weights([np.float32(log_slope), np.float32(offset)])
        got = array(head(distance))[:, 0]
        assert (np.diff(got) <= 0).all()
        assert got[0] > got[-1]
        expected = [oracles.sigmoid(offset - np.exp(log_slope) * d) for d in distance[:, 0].tolist()]
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-7)


def test_logistic_head_without_a_known_range():
    distance = np.array([[0.0], [1.0], [2.0]], "float32")
    for head in (LogisticHead(), LogisticHead(-float("inf"))):
        np.testing.assert_allclose(array(head(distance))[:, 0], [0.99, 0.5, 0.01], atol=1e-3)
        json.dumps(head.get_config(), allow_nan=False)
        again = LogisticHead.from_config(head.get_config())
        assert (again.low, again.high) == (head.low, head.high)


@pytest.mark.parametrize(("low", "high"), [(1.0, 1.0), (2.0, 1.0), (float("inf"), float("inf")), (float("nan"), 1.0)])
def test_logistic_head_range_is_checked(low, high):
    with pytest.raises(ValueError, match=r"`(low|high)` must be in"):
        LogisticHead(low, high)


def test_logistic_head_takes_the_range_of_the_model():
    unit = keras.layers.UnitNormalization
    for tail, distance, expected in [
        ([unit()], "euclidean", (0.0, 2.0)),
        ([unit()], "inner_product", (-1.0, 1.0)),
        ([unit(axis=-1)], "manhattan", (0.0, float("inf"))),
        ([], "euclidean", (0.0, float("inf"))),
        ([], "cosine", (0.0, 2.0)),
        ([], "inner_product", (-float("inf"), float("inf"))),
    ]:
        model = SiameseWrapper(dense_encoder(*tail), distance, head="logistic")
        assert (model.head.low, model.head.high) == expected
        assert (model.bounds, model.output_kind) == ((0.0, 1.0), "score")
        model = SiameseWrapper(dense_encoder(*tail), distance)
        assert (model.bounds, model.output_kind) == (expected, "distance")


def test_unit_norm_is_found_inside():
    unit = keras.layers.UnitNormalization()
    x = keras.Input((4,))
    inside = keras.Sequential([keras.Input((4,)), dense_encoder(), keras.Sequential([unit])])
    for encoder in (keras.Model(x, unit(dense_encoder()(x))), inside, keras.Model(x, inside(x)), unit):
        assert SiameseWrapper(encoder).bounds == (0.0, 2.0)
    over_the_batch = dense_encoder(keras.layers.UnitNormalization(axis=0))
    for encoder in (dense_encoder(unit, keras.layers.Dense(2)), over_the_batch, keras.Sequential(), Subclassed()):
        assert SiameseWrapper(encoder).bounds == (0.0, float("inf"))


def test_own_head(rng):
    left, right = towers(rng, 4)
    model = SiameseWrapper(dense_encoder(), head=keras.layers.Dense(1, activation="sigmoid"))
    got = array(model((left, right)))
    kernel, bias = (array(weight) for weight in model.head.weights)
    distance = euclidean(*embeddings(model, left, right))
    expected = [[oracles.sigmoid(kernel[0, 0] * d + bias[0])] for d in distance[:, 0].tolist()]
    np.testing.assert_allclose(got, expected, rtol=1e-4)
    assert (model.bounds, model.output_kind) == (None, "score")
    model.compile("adam", loss="binary_crossentropy", run_eagerly=BACKEND == "tensorflow")
    model.fit((left, right), SAME, verbose=0)


def test_own_logistic_head_keeps_its_options(rng):
    class Steep(LogisticHead):
        pass

    for head in (LogisticHead(0.5, 0.75, name="mine"), Steep(0.5, 0.75, name="mine")):
        model = SiameseWrapper(dense_encoder(), head=head)
        with keras.saving.custom_object_scope({"Steep": Steep}):
            again = SiameseWrapper.from_config(model.get_config())
        assert (type(again.head), again.head.name, again.head.low, again.head.high) == (type(head), "mine", 0.5, 0.75)


# fit


class Epochs(keras.utils.PyDataset):
    """Two batches of pairs at distance `epoch` + 1, where the epoch is the one last set."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.told, self.epoch = [], 40

    def set_epoch(self, epoch):
        self.told.append(epoch)
        self.epoch = epoch

    def __len__(self):
        return 2

    def __getitem__(self, index):
        left = np.zeros((3, 1), "float32")
        return (left, left + self.epoch + 1.0), np.ones(3, "float32")


def counting_model(**options):
    """Puts out the distance of its inputs, and loses it: the loss of an epoch is the epoch's number + 1."""
    encoder = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False, kernel_initializer="ones")])
    model = SiameseWrapper(encoder)
    model.compile(keras.optimizers.SGD(0.0), loss=ContrastiveLoss(margin=1e4, squared=False), **options)
    return model


class Seen(keras.callbacks.Callback):
    """What a callback sees of the data and of the epoch, each time an epoch begins."""

    def __init__(self):
        super().__init__()
        self.data, self.epochs = [], []

    def on_epoch_begin(self, epoch, logs=None):
        data = getattr(self.model, "training_data", "nothing")
        self.data.append(data)
        self.epochs.append(getattr(data, "epoch", None))


@pytest.mark.parametrize("eager", [True, False])
def test_every_batch_is_of_its_epoch(eager):
    model, data = counting_model(run_eagerly=eager), Epochs()
    history = model.fit(data, epochs=3, verbose=0).history["loss"]
    np.testing.assert_allclose(history, [1, 2, 3])
    assert data.told == [0, 1, 2]
    history = model.fit(data, epochs=7, initial_epoch=5, verbose=0).history["loss"]
    np.testing.assert_allclose(history, [6, 7])
    assert data.told[3:] == [5, 6]


@pytest.mark.parametrize("form", ["none", "one", "list", "tuple", "callback list", "empty"])
def test_epochs_are_set_before_any_callback_asks(form):
    seen, data, model = Seen(), Epochs(), counting_model(run_eagerly=True)
    callbacks = {
        "none": None,
        "one": seen,
        "list": [seen],
        "tuple": (seen,),
        "callback list": keras.callbacks.CallbackList([seen], add_history=True, model=model),
        "empty": [],
    }[form]
    model.fit(data, epochs=2, callbacks=callbacks, verbose=0)
    assert data.told == [0, 1]
    if form not in ("none", "empty"):
        assert seen.epochs == [0, 1]
        assert seen.data == [data, data]
    assert model.training_data is None


def test_a_callback_list_does_not_keep_the_data_of_an_earlier_fit():
    model, first, second = counting_model(run_eagerly=True), Epochs(), Epochs()
    callbacks = keras.callbacks.CallbackList([Seen()], add_history=True, model=model)
    kept = list(callbacks.callbacks)
    for data in (first, second):
        model.fit(data, callbacks=callbacks, verbose=0)
    assert (first.told, second.told) == ([0], [0])
    assert callbacks.callbacks == kept


@pytest.mark.parametrize("form", ["tuple", "list", "generator"])
def test_other_data_is_seen_as_it_was_given(form, rng):
    left, right = np.zeros((N, 1), "float32"), np.ones((N, 1), "float32")
    seen, model = Seen(), counting_model(run_eagerly=True)
    x = {
        "tuple": (left, right),
        "list": [left, right],
        "generator": (((left, right), SAME) for _ in range(2)),
    }[form]
    options = {"steps_per_epoch": 1, "shuffle": False} if form == "generator" else {"y": SAME}
    model.fit(x, callbacks=[seen], verbose=0, **options)
    (data,) = seen.data
    if form == "generator":
        assert data is x
    else:
        assert [np.shape(side) for side in data] == [(N, 1)] * 2
        assert data[0] is left
    assert model.training_data is None


def test_data_is_let_go_when_fit_raises():
    class Stop(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            raise RuntimeError("stopped here")

    model, seen = counting_model(run_eagerly=True), Seen()
    callbacks = keras.callbacks.CallbackList([seen, Stop()], model=model)
    with pytest.raises(RuntimeError, match="stopped here"):
        model.fit(Epochs(), callbacks=callbacks, verbose=0)
    assert len(seen.data) == 1
    assert model.training_data is None
    assert len(callbacks.callbacks) == 2


def test_fit_takes_its_data_by_name_and_by_place(rng):
    left, right = np.zeros((N, 1), "float32"), np.ones((N, 1), "float32")
    model = counting_model(run_eagerly=True)
    by_name = model.fit(x=(left, right), y=np.ones(N), batch_size=3, epochs=2, verbose=0)
    by_place = model.fit((left, right), np.ones(N), 3, 2, 0)
    assert by_name.history["loss"] == by_place.history["loss"] == pytest.approx([1.0, 1.0])
    data = Epochs()
    model.fit(x=data, epochs=1, verbose=0)
    assert data.told == [0]
    with pytest.raises(TypeError, match="epoch"):
        model.fit((left, right), np.ones(N), epoch=2)


def test_fit_refuses_losses_that_cannot_work():
    pair, unit = (np.zeros((N, 4), "float32"),) * 2, keras.layers.UnitNormalization()
    for options, loss, message in [
        ({}, ContrastiveLoss(margin=2.5), r"`margin` of ContrastiveLoss must be at most 2, .*\[0, 2\].*; got 2.5"),
        ({"distance": "angular"}, ContrastiveLoss(), None),
        ({"distance": "angular"}, ContrastiveLoss(margin=1.1), "must be at most 1"),
        ({}, TripletLoss(margin=2.5), "`margin` of TripletLoss must be at most 2"),
        ({"head": "logistic"}, ContrastiveLoss(), r"ContrastiveLoss expects y_pred to hold distances.*scores"),
        ({}, WeightedBinaryCrossentropy(), r"WeightedBinaryCrossentropy expects y_pred to hold scores.*distances"),
        ({"head": "logistic"}, WeightedBinaryCrossentropy(from_logits=True), "use from_logits=False"),
    ]:
        model = SiameseWrapper(dense_encoder(unit), **options)
        model.compile("adam", loss=loss, run_eagerly=True)
        if message is None:
            model.fit(pair, SAME, verbose=0)
            continue
        with pytest.raises(ValueError, match=message):
            model.fit(pair, SAME, verbose=0)
        assert model.training_data is None


def test_fit_accepts_a_wide_margin_where_norms_are_free():
    pair = (np.zeros((N, 4), "float32"),) * 2
    model = SiameseWrapper(dense_encoder())
    model.compile("adam", loss=[ContrastiveLoss(margin=50.0)], run_eagerly=True)
    model.fit(pair, SAME, verbose=0)
    with pytest.raises(ValueError, match="compile"):
        SiameseWrapper(dense_encoder()).fit(pair, SAME, verbose=0)


# Refused input


class NoShape(keras.layers.Layer):
    def call(self, x):
        return {"embedding": x}


@pytest.mark.parametrize(
    ("encoder", "message"),
    [
        (NoShape, r"`encoder` must have an output shape \(batch, dim\) that Keras can work out .*\(6, 4\)"),
        (lambda: keras.Model(x := keras.Input((4,)), [x, x]), r"`encoder` must have an output shape \(batch, dim\)"),
        (keras.layers.Embedding, None),
        (
            lambda: keras.layers.Reshape((2, 2)),
            r"`encoder` must put out embeddings of shape \(batch, dim\).*\(None, 2, 2\)",
        ),
        (lambda: keras.layers.Reshape((4, 1)), r"\(None, 4, 1\).*Flatten, pooling or Dense"),
        (lambda: keras.Sequential([keras.Input((5,)), keras.layers.Dense(2)]), r"`encoder` must have an output shape"),
    ],
)
def test_encoders_without_embeddings_are_refused(encoder, message, rng):
    if message is None:
        with pytest.raises(TypeError, match=r"`encoder` must be a Keras model or layer; got .* of type type"):
            SiameseWrapper(encoder)
        return
    for joint in (True, False):
        with pytest.raises(ValueError, match=message):
            SiameseWrapper(encoder(), joint=joint)(tuple(towers(rng, 4)))


@pytest.mark.parametrize("thing", [None, "resnet", lambda x: x, np.zeros(3)])
def test_encoder_is_a_layer(thing):
    with pytest.raises(TypeError, match="`encoder` must be a Keras model or layer; got"):
        SiameseWrapper(thing)


def test_unknown_options_are_refused():
    with pytest.raises(ValueError, match=r"`distance` must be one of 'euclidean', .*; got 'euclid'"):
        SiameseWrapper(dense_encoder(), "euclid")
    with pytest.raises(ValueError, match="`head` must be one of None, 'logistic'; got 'sigmoid'"):
        SiameseWrapper(dense_encoder(), head="sigmoid")
    with pytest.raises((TypeError, ValueError), match="margin"):
        SiameseWrapper(dense_encoder(), margin=1.0)


@pytest.mark.parametrize("built", [False, True])
@pytest.mark.parametrize("by", ["call", "predict"])
def test_wrong_number_of_inputs(built, by, rng):
    (x,) = towers(rng, 4, count=1)
    wrong = [("one ", x), ("1 inputs", (x,)), ("4 inputs", (x,) * 4), ("one dict", {"left": x, "right": x})]
    for what, inputs in wrong:
        model = SiameseWrapper(dense_encoder())
        if built:
            model((x, x))
        with pytest.raises(
            ValueError, match=r"takes a tuple \(left, right\) or \(anchor, positive, negative\)"
        ) as error:
            model(inputs) if by == "call" else model.predict(inputs, verbose=0)
        assert f"; got {what}" in str(error.value)
        assert "call its `.encoder`" in str(error.value)


def test_towers_of_unlike_shape(rng):
    x = rng.normal(size=(N, 4)).astype("float32")
    for pair in [(x, x[:, :3]), (x, x[:, :, None]), ({"a": x}, {"b": x}), ([x, x], x), (x, x, x[:, :2])]:
        with pytest.raises(ValueError, match=r"must have the same shape, batch aside; got .*\(6, 4\)"):
            SiameseWrapper(dense_encoder())(pair)


@pytest.mark.parametrize("joint", [True, False])
def test_towers_of_unlike_length(joint, rng):
    """Stacked, 6 and 4 rows would be cut into 5 and 5."""
    x = rng.normal(size=(N, 4)).astype("float32")
    model = SiameseWrapper(dense_encoder(), joint=joint)
    with pytest.raises(ValueError, match=r"must have as many rows; got \[6, 4\]"):
        model((x, x[:4]))


# DistanceLayer


@pytest.mark.parametrize("name", ks.distances.names())
def test_distance_layer_in_the_functional_api(name, rng, tmp_path):
    left, right = towers(rng, DIM)
    inputs = [keras.Input((DIM,)), keras.Input((DIM,))]
    layer = DistanceLayer(name)
    model = keras.Model(inputs, layer(inputs))
    assert model.output_shape == (None, 1)
    expected = np.asarray(array(layer.distance.rowwise(left, right)))[:, None]
    np.testing.assert_allclose(array(model([left, right])), expected, rtol=1e-5)
    assert layer.get_config()["distance"] == keras.saving.serialize_keras_object(layer.distance)
    again = keras.Model.from_config(json.loads(json.dumps(model.get_config(), allow_nan=False)))
    again.set_weights(model.get_weights())
    np.testing.assert_allclose(array(again([left, right])), expected, rtol=1e-5)


def test_distance_layer_of_three(rng):
    anchor, positive, negative = towers(rng, DIM, count=3)
    layer = DistanceLayer("snr")
    got = array(layer([anchor, positive, negative]))
    np.testing.assert_allclose(got[:, 0], oracles.rowwise(oracles.snr, anchor, positive), rtol=1e-4)
    np.testing.assert_allclose(got[:, 1], oracles.rowwise(oracles.snr, anchor, negative), rtol=1e-4)
    assert layer.compute_output_shape([(N, DIM)] * 3) == (N, 2)


def test_distance_layer_builds_and_trains_its_distance(rng):
    left, right = towers(rng, DIM)
    distance = ks.distances.MahalanobisDistance(rank=2)
    layer = DistanceLayer(distance)
    assert not distance.built
    layer([left, right])
    assert [tuple(weight.shape) for weight in layer.trainable_weights] == [(DIM, 2)]
    model = SiameseWrapper(dense_encoder(), ks.distances.WeightedManhattanDistance())
    model.compile(keras.optimizers.SGD(5.0), loss=ContrastiveLoss(), run_eagerly=True)
    x = tuple(towers(rng, 4))
    model.fit(x, np.ones(N), epochs=2, verbose=0)
    (weight,) = model.distance.get_weights()
    assert (weight >= 0).all()
    assert not np.allclose(weight, 1.0)


def test_distance_layer_ends_masks(rng):
    encoder = leaky_encoder()
    leaked = [encoder(side) for side in sequences(rng)]
    assert mask_of(leaked[0]) is not None
    assert mask_of(DistanceLayer()(leaked)) is None


@pytest.mark.parametrize("form", ["two", "three"])
def test_gradient_reaches_every_tower_at_equal_embeddings(form, rng):
    (x,) = towers(rng, DIM, count=1)
    layer = DistanceLayer("euclidean")
    inputs = [x, x.copy(), x.copy() + 1.0][: 2 if form == "two" else 3]
    grads = gradient(lambda *towers: ops.sum(layer(list(towers))), *inputs)
    assert np.isfinite(grads).all()
    np.testing.assert_array_equal(grads[1], np.zeros((N, DIM)))


def test_distance_layer_refuses_other_shapes(rng):
    x = rng.normal(size=(N, DIM)).astype("float32")
    for wrong in ([x], [x] * 4, [x, x[:, :2]], [x, x[:, :, None]], x):
        with pytest.raises(ValueError, match=r"two or three embeddings|one known dimension"):
            DistanceLayer()(wrong)
    with pytest.raises(ValueError, match="one known dimension"):
        DistanceLayer()([keras.Input((None,)), keras.Input((None,))])


def test_a_function_that_is_not_registered_is_refused_on_saving(rng, tmp_path):
    model = SiameseWrapper(dense_encoder(), distance=lambda a, b: ops.sum(ops.square(a - b), axis=-1))
    model(tuple(towers(rng, 4)))
    with pytest.raises(ValueError, match="register_keras_serializable"):
        model.save(tmp_path / "model.keras")


def test_training_is_the_same_in_one_run_and_per_tower(rng):
    x = tuple(towers(rng, 4))
    weights = dense_encoder().get_weights()
    losses = []
    for joint in (True, False):
        model = SiameseWrapper(dense_encoder(), joint=joint)
        model.encoder.set_weights(weights)
        model.compile(keras.optimizers.SGD(0.1), loss=ContrastiveLoss(margin=2.0), run_eagerly=True)
        losses.append(model.fit(x, SAME, epochs=3, shuffle=False, verbose=0).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-4)
