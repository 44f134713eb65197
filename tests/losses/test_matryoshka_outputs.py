"""`MatryoshkaLoss` around losses on pairs, triplets and cosines: the models that compare cut embeddings, by loops."""

import keras
import numpy as np
import pytest
from keras import ops

import keras_siamese as ks
from keras_siamese import losses
from keras_siamese.layers import DistanceLayer, ProxyLogits, SiameseWrapper
from tests.oracles import proxies as proxy_oracles
from tests.oracles import rows as oracles
from tests.support.gradients import gradient
from tests.support.proxy_batches import LABELS, arrays

DIM, DIMS, WEIGHTS = 4, [2, 4, 1], [0.5, 1.0, 2.0]  # not in order
SAME = np.array([1, 0, 1, 1, 0, 0, 1])


def array(tensor):
    return ops.convert_to_numpy(tensor)


def linear(*tail, dtype=None):
    dense = keras.layers.Dense(DIM, use_bias=False, dtype=dtype)
    return keras.Sequential([keras.Input((5,)), dense, *tail])


def unit_encoder():
    return linear(keras.layers.UnitNormalization())


def sides(rng, count=2):
    return tuple(rng.normal(size=(len(SAME), 5)).astype("float32") for _ in range(count))


def cut(row, d, normalize=True):
    row = [float(x) for x in row[:d]]
    return [x / oracles.norm(row) for x in row] if normalize and d < DIM else row


def nested(model, inputs, distance, of_distances, normalize=True):
    """Σ_d w_d · mean of `of_distances(row, d_1, d_2, …)`, from the distances of cut embeddings to the anchor's."""
    embedded = [array(model.encoder(one)) for one in inputs]
    total = 0.0
    for d, weight in zip(DIMS, WEIGHTS, strict=True):
        terms = []
        for row in range(len(SAME)):
            anchor, *others = [cut(one[row], d, normalize) for one in embedded]
            terms.append(of_distances(row, *[distance(anchor, other) for other in others]))
        total += weight * sum(terms) / len(terms)
    return total


def of_pair(row, d):
    return oracles.contrastive(SAME[row] == 1, d, margin=0.7)


def of_triplet(row, positive, negative):
    return oracles.triplet(positive, negative, margin=0.3)


# distance, inner loss, number of inputs, loop of one row
COMPARED = {
    "pairs": ("euclidean", losses.ContrastiveLoss(margin=0.7), 2, of_pair),
    "triplets": ("cosine", losses.TripletLoss(margin=0.3), 3, of_triplet),
}


@pytest.mark.each_backend
@pytest.mark.parametrize("kind", COMPARED)
def test_fit_and_evaluate_are_the_loop(kind, rng):
    distance, inner, count, loop = COMPARED[kind]
    model, inputs = SiameseWrapper(unit_encoder(), distance), sides(rng, count)
    model.compile(keras.optimizers.SGD(0.0), losses.MatryoshkaLoss(inner, DIMS, WEIGHTS))
    expected = nested(model, inputs, getattr(oracles, distance), loop)
    history = model.fit(inputs, SAME, batch_size=len(SAME), verbose=0).history
    assert history["loss"][0] == pytest.approx(expected, rel=1e-5)
    assert model.evaluate(inputs, SAME, verbose=0) == pytest.approx(expected, rel=1e-5)
    whole = nested(model, inputs, getattr(oracles, distance), loop, normalize=False)
    assert abs(whole - expected) > 0.01 or kind == "triplets"  # the cosine is the same
    assert model.predict(inputs, verbose=0).shape == (len(SAME), count - 1)


def test_cut_embeddings_are_compared_as_they_are_without_normalize(rng):
    model, inputs = SiameseWrapper(unit_encoder()), sides(rng)
    model.compile("sgd", losses.MatryoshkaLoss(losses.ContrastiveLoss(margin=0.7), DIMS, WEIGHTS, normalize=False))
    expected = nested(model, inputs, oracles.euclidean, of_pair, normalize=False)
    assert model.evaluate(inputs, SAME, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_whole_embeddings_are_compared_as_the_model_does(rng):
    """Those of an encoder without `UnitNormalization` keep their length, as in the model's output."""
    model, inputs = SiameseWrapper(linear()), sides(rng)
    model.compile("sgd", losses.MatryoshkaLoss(losses.ContrastiveLoss(margin=0.7), DIMS, WEIGHTS))
    expected = nested(model, inputs, oracles.euclidean, of_pair)
    assert model.evaluate(inputs, SAME, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_the_loop_rejects_weights_in_another_order(rng):
    model, inputs = SiameseWrapper(unit_encoder()), sides(rng)
    model.compile("sgd", losses.MatryoshkaLoss(losses.ContrastiveLoss(margin=0.7), DIMS, WEIGHTS[::-1]))
    expected = nested(model, inputs, oracles.euclidean, of_pair)
    assert abs(model.evaluate(inputs, SAME, verbose=0) - expected) > 0.01


@pytest.mark.each_backend
def test_a_step_of_training_is_that_of_the_loop(rng):
    """The loop's gradient by the encoder's weights, in one step with learning rate 1."""
    model, inputs = SiameseWrapper(unit_encoder()), sides(rng)
    model.compile(keras.optimizers.SGD(1.0), losses.MatryoshkaLoss(losses.ContrastiveLoss(margin=0.7), DIMS, WEIGHTS))
    kernel = array(model.encoder.layers[0].kernel).astype("float64")

    def loop(kernel):
        total = 0.0
        for d, weight in zip(DIMS, WEIGHTS, strict=True):
            for row in range(len(SAME)):
                parts = [cut((one[row].astype("float64") @ kernel).tolist(), d) for one in inputs]
                # Whole embeddings are normalised too, by the last layer of the encoder.
                parts = [[x / oracles.norm(part) for x in part] for part in parts]
                total += weight * of_pair(row, oracles.euclidean(*parts)) / len(SAME)
        return total

    slope = np.zeros_like(kernel)
    for index in np.ndindex(kernel.shape):
        step = np.zeros_like(kernel)
        step[index] = 1e-5
        slope[index] = (loop(kernel + step) - loop(kernel - step)) / 2e-5
    model.fit(inputs, SAME, batch_size=len(SAME), verbose=0)
    moved = kernel - array(model.encoder.layers[0].kernel)
    np.testing.assert_allclose(moved, slope, atol=1e-4 * np.abs(slope).max())


@pytest.mark.each_backend
def test_the_encoder_runs_once_in_a_step(rng):
    """Otherwise the means of BatchNormalization would move twice."""
    model, inputs = SiameseWrapper(linear(keras.layers.BatchNormalization(momentum=0.5))), sides(rng)
    model.compile(keras.optimizers.SGD(0.0), losses.MatryoshkaLoss(losses.ContrastiveLoss(margin=0.7), DIMS))
    dense, normalization = model.encoder.layers
    mean = array(dense(np.concatenate(inputs))).mean(axis=0)
    model.fit(inputs, SAME, batch_size=len(SAME), verbose=0)
    np.testing.assert_allclose(array(normalization.moving_mean), 0.5 * mean, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("head", [None, "logistic"])
def test_metrics_see_the_whole_embeddings(head, rng):
    inner = losses.ContrastiveLoss() if head is None else losses.WeightedBinaryCrossentropy()
    model, inputs = SiameseWrapper(unit_encoder(), head=head), sides(rng)
    model.compile("sgd", losses.MatryoshkaLoss(inner, [2, 1]), metrics=[keras.metrics.MeanSquaredError(name="square")])
    found = model.evaluate(inputs, SAME, verbose=0, return_dict=True)
    output = model.predict(inputs, verbose=0)[:, 0]
    assert found["square"] == pytest.approx(np.mean((output - SAME) ** 2), rel=1e-5)
    np.testing.assert_allclose(array(model(inputs))[:, 0], output, rtol=1e-5)


def test_a_head_scores_each_cut(rng):
    model, inputs = SiameseWrapper(unit_encoder(), "cosine", head="logistic"), sides(rng)
    model.compile("sgd", losses.MatryoshkaLoss(losses.WeightedBinaryCrossentropy(), DIMS, WEIGHTS))
    model(inputs)
    slope, offset = np.exp(array(model.head.log_slope)), array(model.head.offset)

    def of_score(row, d):
        return oracles.binary_crossentropy(SAME[row] == 1, oracles.sigmoid(offset - slope * d))

    expected = nested(model, inputs, oracles.cosine, of_score)
    assert model.evaluate(inputs, SAME, verbose=0) == pytest.approx(expected, rel=1e-5)


def test_weights_of_samples_are_those_of_rows(rng):
    model, inputs = SiameseWrapper(unit_encoder()), sides(rng)
    model.compile("sgd", losses.MatryoshkaLoss(losses.ContrastiveLoss(margin=0.7), DIMS, WEIGHTS))
    weight = rng.uniform(size=len(SAME)).astype("float32")
    expected = nested(model, inputs, oracles.euclidean, lambda row, d: weight[row] * of_pair(row, d))
    assert model.evaluate(inputs, SAME, sample_weight=weight, verbose=0) == pytest.approx(expected, rel=1e-5)


@pytest.mark.each_backend
def test_the_loss_of_outputs_alone(rng):
    """A training step of one's own has the inputs too; `dissect` asks for the loss of an output without them."""
    model, inputs = SiameseWrapper(unit_encoder()), sides(rng)
    inner = losses.ContrastiveLoss(margin=0.7)
    model.compile("sgd", losses.MatryoshkaLoss(inner, DIMS, WEIGHTS))
    output, same = model(inputs), ops.convert_to_tensor(SAME)
    alone = float(array(model.compute_loss(None, same, output)))
    assert alone == pytest.approx(sum(WEIGHTS) * float(array(inner(same, output))), rel=1e-5)
    tensors = tuple(map(ops.convert_to_tensor, inputs))
    with_inputs = float(array(model.compute_loss(tensors, same, output)))
    assert with_inputs == pytest.approx(nested(model, inputs, oracles.euclidean, of_pair), rel=1e-5)
    assert abs(with_inputs - alone) > 0.01


def test_statistics_are_those_of_whole_embeddings(rng):
    model, inputs = SiameseWrapper(unit_encoder()), sides(rng)
    loss = losses.MatryoshkaLoss(losses.ContrastiveLoss(margin=0.7), [2, 4])
    model.compile("sgd", loss, metrics=loss.metrics())
    found = model.evaluate(inputs, SAME, verbose=0, return_dict=True)
    distance = model.predict(inputs, verbose=0)[:, 0]
    assert found["positive_distance"] == pytest.approx(distance[SAME == 1].mean(), rel=1e-5)
    assert found["negative_distance"] == pytest.approx(distance[SAME == 0].mean(), rel=1e-5)
    total, count = loss.statistics(SAME, distance[:, None])["positive_distance"]
    assert float(total / count) == pytest.approx(distance[SAME == 1].mean(), rel=1e-5)


@pytest.mark.each_backend
def test_half_precision_and_a_saved_model(rng, tmp_path):
    encoder = linear(keras.layers.UnitNormalization(dtype="float32"), dtype="mixed_float16")
    model, inputs = SiameseWrapper(encoder, dtype="mixed_float16"), sides(rng)
    model.compile("sgd", losses.MatryoshkaLoss(losses.ContrastiveLoss(margin=0.7), DIMS, WEIGHTS))
    expected = nested(model, inputs, oracles.euclidean, of_pair)
    assert model.evaluate(inputs, SAME, verbose=0) == pytest.approx(expected, rel=2e-3)
    model.fit(inputs, SAME, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(inputs, SAME, verbose=0) == pytest.approx(model.evaluate(inputs, SAME, verbose=0), rel=1e-5)
    np.testing.assert_array_equal(loaded.predict(inputs, verbose=0), model.predict(inputs, verbose=0))


def test_it_states_what_a_loss_on_pairs_states():
    inner = losses.ContrastiveLoss(margin=0.25, similar_label=0, positive_weight=2.0)
    loss = losses.MatryoshkaLoss(inner, [3, 1], [1, 0.5])
    for name in ("kind", "expects", "distance_margin", "margin_is_gap", "similar_label", "positive_weight"):
        assert getattr(loss, name) == getattr(inner, name), name
    assert loss.value_at_collapse(0.5) == 1.5 * inner.value_at_collapse(0.5)
    assert not hasattr(loss, "class_weight") and not hasattr(loss, "distance")
    logits = losses.MatryoshkaLoss(losses.WeightedBinaryCrossentropy("balanced", from_logits=True), [2])
    assert (logits.class_weight, logits.expected_range) == ("balanced", (-np.inf, np.inf))
    assert losses.MatryoshkaLoss(losses.TripletLoss(), [2]).kind == "triplet"


def fitted(inner, dims, distance="euclidean", tail=(), **options):
    model = SiameseWrapper(linear(*tail), distance)
    model.compile("sgd", losses.MatryoshkaLoss(inner, dims, **options))
    model.fit(sides(np.random.default_rng(0)), SAME, verbose=0)


UNIT = (keras.layers.UnitNormalization(),)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((losses.ContrastiveLoss(), [5, 2]), "`dims` must be at most 4, the size of the embeddings of"),
        ((losses.ContrastiveLoss(), [4, 2], "weighted_manhattan"), "has weights for all 4 dimensions"),
        ((losses.ContrastiveLoss(margin=3.0), [4, 2]), "`margin` of ContrastiveLoss must be at most 2"),
        ((losses.ContrastiveLoss(margin=3.0), [4], "euclidean", UNIT), "`margin` of ContrastiveLoss must be at most 2"),
        ((losses.ArcFaceLoss(), [4, 2]), "ArcFaceLoss expects y_pred to hold cosines"),
        ((losses.SupConLoss(), [4, 2]), "SupConLoss expects y_pred to hold embeddings"),
    ],
)
def test_what_cannot_be_cut_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        fitted(*given)


def test_margins_of_cut_embeddings_that_are_not_normalised_are_free():
    fitted(losses.ContrastiveLoss(margin=3.0), [4, 2], normalize=False)


def test_a_model_that_compares_whole_embeddings_only_is_refused(rng):
    pair, encoder = [keras.Input((5,)) for _ in range(2)], unit_encoder()
    model = keras.Model(pair, DistanceLayer()([encoder(one) for one in pair]))
    model.compile("sgd", losses.MatryoshkaLoss(losses.ContrastiveLoss(), [4, 2]))
    with pytest.raises(ValueError, match=r"distances for each of the dims \[4, 2\], .* Use a SiameseWrapper"):
        model.fit(list(sides(rng)), SAME, verbose=0)


# Cosines to class weights. Of one dimension they are ±1, where the slope of ArcFace is so steep that rounding shows.
PROXY_DIMS = [2, 4, 3]

PROXIES = {
    "ArcFaceLoss": (losses.ArcFaceLoss(scale=4.0, reduction="none"), 1),
    "ProxyAnchorLoss": (losses.ProxyAnchorLoss(scale=4.0, reduction="none"), 1),
    "SoftTripleLoss": (losses.SoftTripleLoss(scale=4.0, reduction="none"), 2),
}


def cosines(embeddings, weights, centers):
    """Those of the loop, `(rows, classes[, centers])`."""
    found = np.array([[proxy_oracles.cosine(x, w) for w in weights] for x in embeddings], "float32")
    return found if centers == 1 else found.reshape(len(found), -1, centers)


@pytest.mark.each_backend
@pytest.mark.parametrize("name", PROXIES)
def test_class_weights_are_cut_too(name):
    inner, centers = PROXIES[name]
    embeddings, weights = arrays(centers)
    layer = ProxyLogits(5, centers, dims=PROXY_DIMS)
    layer.build((None, DIM))
    layer.set_weights([weights])
    found = array(losses.MatryoshkaLoss(inner, PROXY_DIMS, WEIGHTS)(LABELS, layer(embeddings)))
    expected = sum(
        w * array(inner(LABELS, cosines(embeddings[:, :d], weights[:, :d], centers)))
        for d, w in zip(PROXY_DIMS, WEIGHTS, strict=True)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4)


@pytest.mark.each_backend
def test_class_weights_get_the_gradient_of_each_cut():
    embeddings, weights = arrays()
    inner = losses.ArcFaceLoss(scale=4.0)

    def through(dims, places):
        layer = ProxyLogits(5, dims=dims)
        layer.build((None, DIM))
        loss = losses.MatryoshkaLoss(inner, dims, [WEIGHTS[place] for place in places])
        return gradient(lambda x, w: loss(LABELS, layer.stateless_call([w], [], x)[0]), embeddings, weights)

    together = through(PROXY_DIMS, range(3))
    alone = [through([d], [place]) for place, d in enumerate(PROXY_DIMS)]
    for number, slope in enumerate(together):
        np.testing.assert_allclose(slope, sum(one[number] for one in alone), atol=1e-5 * np.abs(slope).max())
    assert np.any(alone[0][1][:, :2]) and not np.any(alone[0][1][:, 2:])  # of two dimensions, in these alone


def test_a_model_of_class_weights_is_trained_saved_and_verified(rng, tmp_path):
    labels = np.repeat(np.arange(6), 5)
    x = (rng.normal(size=(6, 5))[labels] + 0.2 * rng.normal(size=(30, 5))).astype("float32")
    model = keras.Sequential([*unit_encoder().layers, ProxyLogits(6, dims=[4, 2])])
    model.compile("sgd", losses.MatryoshkaLoss(losses.ArcFaceLoss(scale=4.0), dims=[4, 2]))
    monitor = ks.callbacks.VerificationMonitor((x, labels))
    history = model.fit(x, labels, epochs=2, verbose=0, callbacks=[monitor]).history
    assert history["loss"][1] < history["loss"][0] and 0 <= history["val_eer"][1] < 0.5
    found = ks.dissect(model)
    assert "classifier over identities" in str(found)
    embeddings = keras.Sequential(model.layers[:-1]).predict(x, verbose=0)
    np.testing.assert_allclose(array(found.encoder(x)), embeddings, rtol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.evaluate(x, labels, verbose=0) == pytest.approx(model.evaluate(x, labels, verbose=0), rel=1e-5)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (lambda: ProxyLogits(7), r"cosines for each of the dims \[4, 2\].*; got shape \(None, 7\). Use ProxyLogits"),
        (lambda: ProxyLogits(7, dims=[4, 2, 1]), r"got shape \(None, 3, 7\)"),
        (lambda: ProxyLogits(7, dims=[5, 2]), "`dims` must be at most 4, the size of the embeddings; got"),
        (lambda: ProxyLogits(7, dims=[2, 2]), "`dims` must be different from each other"),
        (lambda: ProxyLogits(7, dims=4), "`dims` must be a list of dimensions"),
    ],
)
def test_layers_that_do_not_fit_are_refused(layer, message, rng):
    message = message.replace("None", r"\w+")
    with pytest.raises(ValueError, match=message):
        model = keras.Sequential([*linear().layers, layer()])
        model.compile("sgd", losses.MatryoshkaLoss(losses.ArcFaceLoss(), [4, 2]))
        model.fit(sides(rng, 1)[0], SAME, verbose=0)


def test_one_loss_on_several_dims_is_refused(rng):
    model = keras.Sequential([*linear().layers, ProxyLogits(7, dims=[4, 2])])
    model.compile("sgd", losses.ArcFaceLoss())
    with pytest.raises(ValueError, match=r"must hold cosines of shape \(batch, classes\)"):
        model.fit(sides(rng, 1)[0], SAME, verbose=0)


# Training

KINDS = {
    "pairs": losses.ContrastiveLoss(),
    "triplets": losses.TripletLoss(margin=0.5),
    "proxies": losses.NormalizedSoftmaxLoss(temperature=0.1),
}


def identities(count, seed):
    """Identities that differ in 16 directions of 32, with 8 samples each."""
    basis, rng = np.random.default_rng(0).normal(size=(16, 32)), np.random.default_rng(seed)
    labels = np.repeat(np.arange(count), 8)
    inner = rng.normal(size=(count, 16))[labels] + 0.35 * rng.normal(size=(len(labels), 16))
    return (inner @ basis + 0.8 * rng.normal(size=(len(labels), 32))).astype("float32"), labels


def error_rates(kind, dims, seed):
    """The EER on new identities of all 32 dimensions and of the first 4; trained for `dims`, or by the loss alone."""
    keras.utils.set_random_seed(seed)
    encoder = keras.Sequential([keras.Input((32,)), keras.layers.Dense(32), keras.layers.UnitNormalization()])
    (x, labels), options = identities(200, seed), {"batch_size": 128, "seed": 0}
    model, data = SiameseWrapper(encoder), {"y": None}
    if kind == "pairs":
        data["x"] = ks.data.PairSequence(x, labels, pairs_per_epoch=1280, **options)
    elif kind == "triplets":
        data["x"] = ks.data.TripletSequence(x, labels, triplets_per_epoch=1280, **options)
    else:
        model = keras.Sequential([encoder, ProxyLogits(200, dims=dims)])
        data = {"x": x, "y": labels, "batch_size": 128}
    loss = KINDS[kind] if dims is None else losses.MatryoshkaLoss(KINDS[kind], dims)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(**data, epochs=10, verbose=0)
    x, labels = identities(60, seed + 100)
    embeddings, compare = encoder.predict(x, verbose=0), ks.verification.compare_embeddings
    return [compare(embeddings[:, :d], labels, distance="cosine").eer() for d in (32, 4)]


@pytest.mark.deep
@pytest.mark.parametrize("kind", KINDS)
def test_cut_embeddings_verify_better_than_those_of_the_loss_alone(kind):
    """Means of four trainings: the first 4 dimensions gain, and all 32 lose nothing that matters."""
    plain, nested = ([error_rates(kind, dims, seed) for seed in range(4)] for dims in (None, [32, 4]))
    (whole, short), (nested_whole, nested_short) = np.mean(plain, axis=0), np.mean(nested, axis=0)
    assert nested_short < 0.95 * short and nested_whole < whole + 0.01
