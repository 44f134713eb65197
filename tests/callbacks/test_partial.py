"""Partial FC: with all classes it is the whole layer, with a sample it is the loop written by hand."""

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.callbacks import PartialFC, partial

DIM, CLASSES, TAU = 5, 23, 0.5
EAGERLY = keras.backend.backend() == "tensorflow"


class Batches(keras.utils.PyDataset):
    """Four batches of six rows; the classes of each are few."""

    def __init__(self):
        super().__init__()
        rng = np.random.default_rng(3)
        self.x = rng.normal(size=(24, DIM)).astype("float32")
        self.labels = rng.integers(0, CLASSES, (12, 1)).repeat(2, axis=1).ravel()

    def __len__(self):
        return 4

    def __getitem__(self, index):
        rows = slice(6 * index, 6 * index + 6)
        return self.x[rows], self.labels[rows]


def compiled(count, optimizer, encoder=False, **options):
    keras.utils.set_random_seed(1)
    parts = [keras.Input((DIM,)), *([keras.layers.Dense(DIM)] if encoder else []), ks.layers.ProxyLogits(count)]
    model = keras.Sequential(parts)
    loss = ks.losses.NormalizedSoftmaxLoss(temperature=TAU)
    model.compile(optimizer, loss=loss, run_eagerly=EAGERLY, **options)
    return model


def train(model, classes, epochs=2, initial_epoch=0):
    batches = classes.batches(initial_epoch)
    options = {"steps_per_epoch": 4, "epochs": epochs, "initial_epoch": initial_epoch, "shuffle": False, "verbose": 0}
    return model.fit(batches, callbacks=[classes], **options).history["loss"]


def start(seed=0):
    proxies = np.zeros((CLASSES, 1, DIM), "float32")
    partial.fill(proxies, np.random.default_rng(seed))
    return proxies[:, 0]


def by_hand(batches, sample, rate, momentum, epochs=2, every=1):
    """SGD with momentum on the proxies of each step's classes; the gradient of the softmax is written out.

    The proxies move in one of `every` steps. What a class has gathered until then waits until it is in such a step.
    """
    proxies, losses = start().astype("float64"), []
    speed, gathered = np.zeros((2, CLASSES, DIM))
    for epoch in range(epochs):
        values = []
        for index in range(len(batches)):
            x, labels = batches[index]
            ids = partial.sampled(labels, CLASSES, sample, np.random.default_rng([0, epoch, index]))
            unit_x = x / np.linalg.norm(x, axis=1, keepdims=True)
            lengths = np.linalg.norm(proxies[ids], axis=1, keepdims=True)
            unit_w = proxies[ids] / lengths
            cosine = unit_x @ unit_w.T
            share = np.exp(cosine / TAU) / np.exp(cosine / TAU).sum(axis=1, keepdims=True)
            own = ids == labels[:, None]
            values.append(-np.log(share[own]).mean())
            slope = (share - own) / TAU / len(x)
            gradient = (slope.T @ unit_x - (slope * cosine).sum(axis=0)[:, None] * unit_w) / lengths
            gathered[ids] += gradient / every
            if (epoch * len(batches) + index + 1) % every == 0:
                speed[ids] = momentum * speed[ids] - rate * gathered[ids]
                proxies[ids] += speed[ids]
                gathered[ids] = 0
        losses.append(np.mean(values))
    return proxies, losses


@pytest.mark.each_backend
@pytest.mark.parametrize("every", [1, 3])
def test_a_sample_is_trained_as_by_hand(every):
    batches, steps = Batches(), {} if every == 1 else {"gradient_accumulation_steps": every}
    classes = PartialFC(batches, CLASSES, sample=9)
    losses = train(compiled(9, keras.optimizers.SGD(0.5, momentum=0.9, **steps)), classes)
    proxies, expected = by_hand(batches, 9, 0.5, 0.9, every=every)
    np.testing.assert_allclose(losses, expected, rtol=1e-4)
    np.testing.assert_allclose(classes.proxies, proxies, rtol=1e-4, atol=1e-5)
    assert not np.allclose(classes.proxies, start(), atol=1e-2)


@pytest.mark.each_backend
def test_with_all_classes_it_is_the_whole_layer():
    batches = Batches()
    classes = PartialFC(batches, CLASSES, sample=1.0)
    model = compiled(CLASSES, keras.optimizers.Adam(0.05), encoder=True)
    losses = train(model, classes)
    whole = compiled(CLASSES, keras.optimizers.Adam(0.05), encoder=True)
    whole.layers[-1].set_weights([start()])
    expected = whole.fit(batches, epochs=2, shuffle=False, verbose=0).history["loss"]
    np.testing.assert_allclose(losses, expected, rtol=1e-5)
    for found, weight in zip(model.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_allclose(found, weight, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(classes.proxies, whole.get_weights()[-1], rtol=1e-4, atol=1e-5)


def test_an_average_of_weights_begins_at_the_proxies():
    classes = PartialFC(Batches(), CLASSES, sample=9)
    train(compiled(9, keras.optimizers.SGD(0.0, use_ema=True)), classes)  # the averages replace the weights
    np.testing.assert_allclose(classes.proxies, start(), rtol=1e-5)


def test_a_run_goes_on_with_the_files_of_an_earlier_one(tmp_path):
    def optimizer():
        return keras.optimizers.SGD(0.5, momentum=0.9)

    whole = PartialFC(Batches(), CLASSES, sample=9)
    train(compiled(9, optimizer()), whole, epochs=3)
    for first, last in ((0, 2), (2, 3)):
        parts = PartialFC(Batches(), CLASSES, sample=9, folder=tmp_path / "proxies")
        train(compiled(9, optimizer()), parts, epochs=last, initial_epoch=first)
    np.testing.assert_array_equal(parts.proxies, whole.proxies)
    assert sorted(file.name for file in (tmp_path / "proxies").iterdir()) == ["momentum.npy", "proxies.npy"]
    with pytest.raises(ValueError, match=r"must hold float32 \(24, 1, 5\); it holds float32 \(23, 1, 5\)"):
        train(compiled(9, optimizer()), PartialFC(Batches(), CLASSES + 1, sample=9, folder=tmp_path / "proxies"))


class FirstWeights(keras.callbacks.Callback):
    """Ends with the weights of the first epoch, as EarlyStopping does if the first was the best."""

    def on_epoch_end(self, epoch, logs=None):
        if epoch == 0:
            self.kept = self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self.kept)


def test_weights_that_another_callback_restores_do_not_reach_other_classes():
    classes = PartialFC(Batches(), CLASSES, sample=9)
    model = compiled(9, keras.optimizers.SGD(0.0))
    options = {"steps_per_epoch": 4, "epochs": 2, "shuffle": False, "verbose": 0}
    model.fit(classes.batches(), callbacks=[FirstWeights(), classes], **options)
    np.testing.assert_array_equal(classes.proxies, start())


def test_several_centers_are_kept_together():
    classes = PartialFC(Batches(), CLASSES, sample=9)
    model = keras.Sequential([keras.Input((DIM,)), ks.layers.ProxyLogits(9, centers_per_class=2)])
    model.compile("adam", loss=ks.losses.SoftTripleLoss(), run_eagerly=EAGERLY)
    train(model, classes)
    assert classes.proxies.shape == (CLASSES, 2, DIM)
    rows = model.get_weights()[0].reshape(9, 2, DIM)
    last = np.random.default_rng([0, 1, 3])
    np.testing.assert_array_equal(classes.proxies[partial.sampled(Batches()[3][1], CLASSES, 9, last)], rows)


def test_the_sample_has_the_batchs_classes_and_all_others_alike():
    labels, counts = np.array([4, 4, 0, 19]), np.zeros(20)
    for seed in range(2000):
        classes = partial.sampled(labels, 20, 8, np.random.default_rng(seed))
        assert len(classes) == 8 and (np.diff(classes) > 0).all() and np.isin(labels, classes).all()
        counts[classes] += 1
    assert (counts[[0, 4, 19]] == 2000).all()
    others = np.delete(counts, [0, 4, 19])
    assert np.abs(others - 2000 * 5 / 17).max() < 5 * np.sqrt(2000 * 5 / 17 * 12 / 17)


def test_mistakes_are_named():
    def fit(model, classes, batches=None):
        options = {"steps_per_epoch": 4, "shuffle": False, "verbose": 0, "callbacks": [classes]}
        model.fit(classes.batches() if batches is None else batches, **options)

    classes = PartialFC(Batches(), CLASSES, sample=9)
    # On TensorFlow, an old Keras draws the first batch within TensorFlow, which raises its own error with this message.
    own = Exception if keras.backend.backend() == "tensorflow" else ValueError
    with pytest.raises(own, match="`callbacks` of `fit` must hold the PartialFC"):
        compiled(9, "sgd").fit(classes.batches(), steps_per_epoch=4, shuffle=False, verbose=0)
    with pytest.raises(ValueError, match=r"`fit` must be given `batches\(\)`"):
        compiled(CLASSES, "sgd").fit(Batches(), verbose=0, callbacks=[PartialFC(Batches(), CLASSES, sample=CLASSES)])
    with pytest.raises(ValueError, match="made anew for each fit"):
        train(compiled(CLASSES, "sgd"), whole := PartialFC(Batches(), CLASSES, sample=CLASSES), epochs=1)
        compiled(CLASSES, "sgd").fit(Batches(), verbose=0, callbacks=[whole])
    with pytest.raises(ValueError, match=r"ProxyLogits\(9\); 0 were found"):
        fit(compiled(10, "sgd"), classes)
    with pytest.raises(ValueError, match="`optimizer` must keep a row .* Adafactor keeps"):
        fit(compiled(9, "adafactor"), classes)
    with pytest.raises(ValueError, match="`sample` must be at least the number of classes in a batch"):
        fit(compiled(1, "sgd"), PartialFC(Batches(), CLASSES, sample=1))
    with pytest.raises(ValueError, match=r"`labels` must be classes in 0 … 2 \(`num_classes`\)"):
        fit(compiled(3, "sgd"), PartialFC(Batches(), 3, sample=1.0))
    with pytest.raises(ValueError, match="`steps_per_execution` must be 1"):
        fit(compiled(9, "sgd", steps_per_execution=2), classes)
    with pytest.raises(ValueError, match="`sample`"):
        PartialFC(Batches(), CLASSES, sample=CLASSES + 1)
    with pytest.raises(TypeError, match="`batches` must be a sequence"):
        PartialFC(iter([]), CLASSES)
