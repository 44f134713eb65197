"""Proxy losses through `ProxyLogits` against pytorch-metric-learning: values and gradients, and what it leaves open."""

import warnings

import keras
import numpy as np
import pytest
from keras import ops

from keras_siamese import losses
from keras_siamese.layers import ProxyLogits, SiameseWrapper
from tests.oracles import proxies as oracles
from tests.support.gradients import gradient, numerical_gradient

CLASSES, DIM = 5, 4
LABELS = np.array([0, 3, 0, 1, 3, 3, 4, 0, 1])  # uneven, 4 a singleton, 2 absent
ROWS = len(LABELS)


def arrays(centers=1):
    """Embeddings `(rows, dim)` and weights `(classes · centers, dim)`, of unlike lengths."""
    rng = np.random.default_rng(11)
    embeddings = rng.normal(size=(ROWS, DIM)) * rng.uniform(0.3, 3.0, (ROWS, 1))
    return embeddings.astype("float32"), rng.normal(size=(CLASSES * centers, DIM)).astype("float32")


def degrees(options):
    return {**options, "margin": np.degrees(options["margin"])}


def same(options):
    return options


# Ours, centers a class, options, theirs, how theirs are named.
CASES = [
    ("NormalizedSoftmaxLoss", 1, {"temperature": 0.05}, same),
    ("NormalizedSoftmaxLoss", 1, {"temperature": 0.4}, same),
    ("ArcFaceLoss", 1, {"margin": 0.5, "scale": 64}, degrees),
    ("ArcFaceLoss", 1, {"margin": 1.9, "scale": 4}, degrees),
    ("ArcFaceLoss", 1, {"margin": 0.0, "scale": 8}, degrees),
    ("SubCenterArcFaceLoss", 3, {"margin": 0.5, "scale": 64}, lambda o: {**degrees(o), "sub_centers": 3}),
    ("SubCenterArcFaceLoss", 2, {"margin": 1.2, "scale": 5}, lambda o: {**degrees(o), "sub_centers": 2}),
    ("CosFaceLoss", 1, {"margin": 0.35, "scale": 64}, same),
    ("CosFaceLoss", 1, {"margin": 1.5, "scale": 3}, same),
    ("SphereFaceLoss", 1, {"margin": 4, "scale": 1}, same),
    ("SphereFaceLoss", 1, {"margin": 3, "scale": 7}, same),
    ("SphereFaceLoss", 1, {"margin": 1, "scale": 3}, same),
    ("ProxyNCALoss", 1, {"scale": 1}, lambda o: {"softmax_scale": o["scale"]}),
    ("ProxyNCALoss", 1, {"scale": 9}, lambda o: {"softmax_scale": o["scale"]}),
    ("ProxyAnchorLoss", 1, {"margin": 0.1, "scale": 32}, lambda o: {"margin": o["margin"], "alpha": o["scale"]}),
    ("ProxyAnchorLoss", 1, {"margin": 0.4, "scale": 2}, lambda o: {"margin": o["margin"], "alpha": o["scale"]}),
    (
        "SoftTripleLoss",
        10,
        {"scale": 20, "gamma": 0.1, "margin": 0.01},
        lambda o: {"la": o["scale"], "gamma": o["gamma"], "margin": o["margin"], "centers_per_class": 10},
    ),
    (
        "SoftTripleLoss",
        2,
        {"scale": 3, "gamma": 0.7, "margin": 0.5},
        lambda o: {"la": o["scale"], "gamma": o["gamma"], "margin": o["margin"], "centers_per_class": 2},
    ),
]
NAMES = [f"{case[0]}-{'-'.join(f'{value:g}' for value in case[2].values())}" for case in CASES]
EACH = [(getattr(losses, name), centers) for name, centers in dict(case[:2] for case in CASES).items()]


def theirs(name, options, embeddings, weights, regularizer=None):
    """Value and gradients of pytorch-metric-learning in float64, on unit embeddings, by the embeddings given."""
    torch, pml = pytest.importorskip("torch"), pytest.importorskip("pytorch_metric_learning.losses")
    extra = {} if regularizer is None else {"weight_regularizer": regularizer[0], "weight_reg_weight": regularizer[1]}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # theirs, of SciPy on torch tensors
        loss = getattr(pml, name)(num_classes=CLASSES, embedding_size=DIM, **options, **extra)
    (parameter,) = loss.parameters()
    by_columns = parameter.shape[0] == DIM
    parameter.data = torch.tensor(weights.T if by_columns else weights, dtype=torch.float64)
    inputs = torch.tensor(embeddings, dtype=torch.float64, requires_grad=True)
    value = loss(torch.nn.functional.normalize(inputs), torch.tensor(LABELS))
    value.backward()
    slope = parameter.grad.numpy()
    return value.item(), inputs.grad.numpy(), slope.T if by_columns else slope


def through_layer(loss, centers, **options):
    """The loss as a function of embeddings and class weights."""
    layer = ProxyLogits(CLASSES, centers, **options)
    layer.build((None, DIM))

    def of(embeddings, weights, labels=LABELS):
        cosine, _, extra = layer.stateless_call([weights], [], embeddings, return_losses=True)
        return sum(extra, start=loss(labels, cosine))

    return of


@pytest.mark.parametrize(("name", "centers", "options", "names"), CASES, ids=NAMES)
def test_value_and_gradients_are_those_of_pytorch_metric_learning(name, centers, options, names):
    embeddings, weights = arrays(centers)
    expected = theirs(name, names(options), embeddings, weights)
    ours = through_layer(getattr(losses, name)(**options), centers)
    assert float(ops.convert_to_numpy(ours(embeddings, weights))) == pytest.approx(expected[0], rel=1e-5)
    for got, right in zip(gradient(ours, embeddings, weights), expected[1:], strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-5 * np.max(np.abs(right)))


def test_the_comparison_has_power():
    """Neighbouring losses and options differ by far more than the tolerance, and rows lie past π − m."""
    embeddings, weights = arrays()
    values = [theirs(n, names(o), embeddings, weights)[0] for n, centers, o, names in CASES if centers == 1]
    gaps = np.abs(np.diff(np.sort(values)))
    assert np.min(gaps) > 1e-3
    own = [oracles.cosine(x, weights[y]) for x, y in zip(embeddings, LABELS, strict=True)]
    assert min(own) < -np.cos(1.9) < max(own)


def test_soft_triple_with_merging_centers():
    embeddings, weights = arrays(3)
    regularizers = pytest.importorskip("pytorch_metric_learning.regularizers")
    regularizer = (regularizers.SparseCentersRegularizer(CLASSES, 3), 0.2)
    expected = theirs("SoftTripleLoss", {"centers_per_class": 3}, embeddings, weights, regularizer)
    alone = theirs("SoftTripleLoss", {"centers_per_class": 3}, embeddings, weights)
    ours = through_layer(losses.SoftTripleLoss(), 3, center_sparsity=0.2)
    assert abs(expected[0] - alone[0]) > 0.01
    assert float(ops.convert_to_numpy(ours(embeddings, weights))) == pytest.approx(expected[0], rel=1e-5)
    for got, right in zip(gradient(ours, embeddings, weights), expected[1:], strict=True):
        np.testing.assert_allclose(got, right, rtol=1e-4, atol=1e-5)


def test_centers_that_meet_do_not_make_nan():
    embeddings, weights = arrays(3)
    weights[1::3], weights[2] = 2 * weights[::3], -weights[0]
    ours = through_layer(losses.SoftTripleLoss(), 3, center_sparsity=0.2)
    (slope,) = gradient(lambda w: ours(embeddings, w), weights)
    assert np.all(np.isfinite(slope))
    assert np.max(np.abs(slope)) < 1e3


# Where pytorch-metric-learning is no reference: rows, and angles at which its arccos has no gradient

COSINES = np.random.default_rng(5).uniform(-0.95, 0.95, (ROWS, CLASSES)).astype("float32")
COSINES[0, 0], COSINES[3, 1] = -0.99, 0.99


def value(loss, y_true=LABELS, y_pred=COSINES, **options):
    return ops.convert_to_numpy(ops.cast(loss(y_true, y_pred, **options), "float32"))


def cosines(loss):
    """A y_pred for `loss`, of its own."""
    if not loss.several_centers:
        return COSINES.copy()
    return np.stack([COSINES, 0.5 * COSINES - 0.1], axis=2).astype("float32")


def test_rows_are_the_loops():
    rows = [(row.tolist(), int(label)) for row, label in zip(COSINES, LABELS, strict=True)]
    for margin in (0.5, 2.0):
        expected = [oracles.arcface(*row, margin=margin, scale=16.0) for row in rows]
        got = value(losses.ArcFaceLoss(margin, 16, reduction="none"))
        np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)
        wrong = [oracles.wrong_arcface(*row, margin=margin, scale=16.0) for row in rows]
        assert not np.allclose(wrong, expected, rtol=0.1)
    for margin in (1, 2, 5):
        got = value(losses.SphereFaceLoss(margin, 2.0, reduction="none"))
        np.testing.assert_allclose(got, [oracles.sphereface(*row, margin, 2.0) for row in rows], rtol=1e-4, atol=1e-5)


def test_proxy_anchor_shares_its_logarithms_out_to_rows():
    rows, classes = COSINES.tolist(), LABELS.tolist()
    expected = oracles.proxy_anchor(rows, classes, scale=8.0)
    wrong = oracles.wrong_proxy_anchor(rows, classes, scale=8.0)
    assert not np.isclose(np.mean(expected), np.mean(wrong), rtol=0.02)
    np.testing.assert_allclose(value(losses.ProxyAnchorLoss(scale=8, reduction="none")), expected, rtol=1e-4)
    weight = np.linspace(0.0, 2.0, ROWS)
    got = value(losses.ProxyAnchorLoss(scale=8), sample_weight=weight)
    assert got == pytest.approx(np.mean(weight * expected), rel=1e-5)


@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_sample_weight_and_reduction_keep_their_meaning(cls, centers):
    y_pred = cosines(cls())
    rows, weight = value(cls(reduction="none"), y_pred=y_pred), np.linspace(0.0, 2.0, ROWS)
    assert rows.shape == (ROWS,)
    assert rows.min() >= 0
    assert value(cls(), y_pred=y_pred) == pytest.approx(rows.mean(), rel=1e-5)
    for shape in ((ROWS,), (ROWS, 1)):
        got = value(cls(reduction="sum"), y_pred=y_pred, sample_weight=weight.reshape(shape))
        assert got == pytest.approx(np.sum(weight * rows), rel=1e-5)


@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_order_of_the_batch_does_not_matter(cls, centers):
    order = np.random.default_rng(2).permutation(ROWS)
    loss, y_pred = cls(reduction="none"), cosines(cls())
    np.testing.assert_allclose(
        value(loss, LABELS[order], y_pred[order]), value(loss, y_pred=y_pred)[order], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("own", [1.0, -1.0])
@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_gradient_is_finite_where_the_embedding_is_a_proxy_or_its_opposite(cls, centers, own):
    """By the cosines, and through the layer with the embedding on top of its class weight."""
    y_pred = cosines(cls())
    y_pred[np.arange(ROWS), LABELS] = own
    (slope,) = gradient(lambda cosine: cls()(LABELS, cosine), y_pred)
    assert np.all(np.isfinite(slope))
    _, weights = arrays(centers)
    embeddings = own * 2.0 * weights[LABELS * centers]
    loss = cls()
    assert np.isfinite(ops.convert_to_numpy(through_layer(loss, centers)(embeddings, weights)))
    for slope in gradient(through_layer(loss, centers), embeddings, weights):
        assert np.all(np.isfinite(slope))
        assert np.max(np.abs(slope)) < 1e3


def test_arcface_falls_with_the_own_cosine_over_all_of_its_range():
    for margin in (0.3, 0.5, 1.5, 2.0):
        own = np.linspace(-1.0, 1.0, 41, dtype="float32")
        y_pred = np.stack([own, np.full(41, 0.2, "float32")], axis=1)
        terms = value(losses.ArcFaceLoss(margin, 2.0, reduction="none"), np.zeros(41, int), y_pred)
        expected = [oracles.arcface(row, 0, margin, 2.0) for row in y_pred.astype("float64").tolist()]
        np.testing.assert_allclose(terms, expected, rtol=1e-4, atol=1e-5)
        assert np.all(np.diff(terms) < 1e-6)


def test_proxy_anchor_gradient_is_that_of_the_whole():
    """Its rows hold shares that are not differentiated; their mean must not show it."""

    def loop(y_pred):
        return float(np.mean(oracles.proxy_anchor(y_pred.tolist(), LABELS.tolist(), scale=4.0)))

    loss = losses.ProxyAnchorLoss(scale=4.0)
    (slope,) = gradient(lambda cosine: loss(LABELS, cosine), COSINES)
    np.testing.assert_allclose(slope, numerical_gradient(loop, COSINES)[0], rtol=1e-3, atol=1e-5)


@pytest.mark.any_backend
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_degenerate_batches(cls, centers, dtype):
    """One row; one class alone; every row another class; all rows at one point."""
    y_pred = cosines(cls())
    batches = {
        "one row": (np.array([2]), y_pred[:1]),
        "one class": (np.full(ROWS, 3), y_pred),
        "classes apart": (np.arange(CLASSES), y_pred[:CLASSES]),
        "one point": (LABELS, np.repeat(y_pred[:1], ROWS, axis=0)),
        "all opposite": (LABELS, np.full_like(y_pred, -1.0)),
        "all alike": (LABELS, np.full_like(y_pred, 1.0)),
    }
    for name, (labels, batch) in batches.items():
        loss = cls(dtype=dtype)
        batch = ops.convert_to_numpy(ops.cast(batch, dtype)).astype("float32")
        got, wide = value(loss, labels, ops.cast(batch, dtype)), value(cls(), labels, batch)
        assert np.isfinite(got), name
        assert got == pytest.approx(float(wide), rel=1e-2, abs=1e-2), name
        (slope,) = gradient(lambda cosine, y=labels: cls()(y, cosine), batch)
        assert np.all(np.isfinite(slope)), name
        # A softmax over equal logits pulls at the own class, however little.
        assert np.max(np.abs(slope)) > 0 or name == "all opposite", name


@pytest.mark.parametrize("length", [0.0, 1e-20])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_vectors_without_a_direction(cls, centers, dtype, length):
    embeddings, weights = arrays(centers)
    embeddings[2] = length * embeddings[2]
    of = through_layer(cls(), centers)

    def narrow(x, w):
        return of(ops.cast(x, dtype), w)

    assert np.isfinite(ops.convert_to_numpy(narrow(embeddings, weights)))
    slopes = gradient(narrow, embeddings, weights)
    assert np.max(np.abs(slopes[0][2])) == 0.0
    assert all(np.all(np.isfinite(slope)) and np.max(np.abs(slope)) < 1e3 for slope in slopes)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_nan_is_not_hidden(cls, centers, dtype):
    embeddings, weights = arrays(centers)
    embeddings[4, 1] = np.nan
    loss = cls(reduction="none", dtype=dtype)
    rows = through_layer(loss, centers)(ops.cast(embeddings, dtype), weights)
    rows = ops.convert_to_numpy(ops.cast(rows, "float32"))
    assert np.isnan(rows[4])
    if cls is not losses.ProxyAnchorLoss:  # whose logarithms run over the rows
        assert np.isfinite(np.delete(rows, 4)).all()


# Training


def blobs(rng, classes=4, samples=24, spread=0.35):
    """Points around `classes` centers, and which: `(n, 6)`, `(n,)`."""
    centers = rng.normal(size=(classes, 6))
    labels = rng.permutation(np.repeat(np.arange(classes), samples))
    return (centers[labels] + spread * rng.normal(size=(len(labels), 6))).astype("float32"), labels


def small_encoder():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(16, "tanh"), keras.layers.Dense(3)], name="encoder")


def test_training_saving_and_verifying_with_the_encoder(tmp_path, rng):
    x, labels = blobs(rng, classes=6)
    x, labels, held, held_labels = x[labels < 4], labels[labels < 4], x[labels >= 4], labels[labels >= 4]
    encoder = small_encoder()
    model = keras.Sequential([encoder, ProxyLogits(4)])
    model.compile(keras.optimizers.Adam(0.02), loss=losses.ArcFaceLoss(margin=0.3, scale=16))
    history = model.fit(x, labels, batch_size=32, epochs=15, verbose=0).history["loss"]
    assert history[-1] < 0.3 * history[0]
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert (again.loss.margin, again.loss.scale) == (0.3, 16)
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)
    assert np.mean(np.argmax(again.predict(x, verbose=0), axis=1) == labels) > 0.95
    # The encoder alone compares pairs, also of the two classes it never saw.
    siamese = SiameseWrapper(again.layers[0], "cosine")
    for points, classes in ((x, labels), (held, held_labels)):
        i, j = np.triu_indices(len(points), 1)
        apart = siamese.predict((points[i], points[j]), verbose=0)[:, 0]
        genuine = classes[i] == classes[j]
        assert np.median(apart[genuine]) < 0.5 * np.median(apart[~genuine])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "bfloat16"])
def test_training_in_half_precision(policy, rng):
    x, labels = blobs(rng)
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential([small_encoder(), ProxyLogits(4)])
        assert keras.backend.standardize_dtype(model(x[:3]).dtype) == "float32"
        # Not Adam: in weights of bfloat16 its 0.999 is 1, and nothing moves.
        model.compile(keras.optimizers.SGD(0.1), loss=losses.ArcFaceLoss(margin=0.3, scale=16))
        history = model.fit(x, labels, batch_size=32, epochs=12, verbose=0).history["loss"]
    finally:
        keras.config.set_dtype_policy("float32")
    assert history[-1] < 0.5 * history[0]


@pytest.mark.parametrize(("cls", "centers"), EACH)
def test_training_with_each_loss_compiled_lowers_it(cls, centers, rng):
    x, labels = blobs(rng)
    model = keras.Sequential([small_encoder(), ProxyLogits(4, centers, center_sparsity=0.1 if centers > 1 else 0.0)])
    jit = keras.backend.backend() != "torch"
    model.compile(keras.optimizers.Adam(0.02), loss=cls(), jit_compile=jit)
    history = model.fit(x, labels, batch_size=32, epochs=8, verbose=0).history["loss"]
    assert history[-1] < 0.8 * history[0]
