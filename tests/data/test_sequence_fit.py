"""Sequences under Keras's own fit and evaluate: each epoch gets its own batches on every backend, with any workers."""

import keras
import numpy as np
import pytest

from keras_siamese.data import PairSequence, image_augmenter, sequence

pytestmark = pytest.mark.each_backend

SAMPLES = 24
LABELS = np.arange(SAMPLES) // 3


def pair_sequence(labels=LABELS, **options):
    """Samples are their own indices, `(n, 1)`; six batches an epoch, more than the workers' queue holds."""
    return PairSequence(np.arange(len(labels), dtype="float32")[:, None], labels, batch_size=4, **options)


class SeenPairs(keras.metrics.Metric):
    """Counts, inside the model, how often each pair (left, right) came since the last reset."""

    def __init__(self):
        super().__init__(name="seen")
        self.counts = self.add_weight(shape=(SAMPLES * SAMPLES,), initializer="zeros", name="counts")

    def update_state(self, y_true, y_pred, sample_weight=None):
        pair = keras.ops.cast(y_pred[:, 0] * SAMPLES + y_pred[:, 1], "int32")
        self.counts.assign_add(keras.ops.sum(keras.ops.one_hot(pair, SAMPLES * SAMPLES), axis=0))

    def result(self):
        return keras.ops.sum(self.counts)

    def reset_state(self):
        self.counts.assign(keras.ops.zeros((SAMPLES * SAMPLES,)))


class Epochs(keras.callbacks.Callback):
    """What ks.callbacks.SetEpoch does; also notes what each epoch, and each validation, showed to the model."""

    def __init__(self, train=None):
        super().__init__()
        self.train, self.seen, self.validated = train, {}, []

    def on_epoch_begin(self, epoch, logs=None):
        if self.train is not None:
            self.train.set_epoch(epoch)

    def on_train_batch_end(self, batch, logs=None):
        self.counted = counts(self.model)

    def on_epoch_end(self, epoch, logs=None):
        self.seen[epoch] = self.counted

    def on_test_end(self, logs=None):
        self.validated.append(counts(self.model))


def counts(model):
    return keras.ops.convert_to_numpy(model.seen.counts).astype(int).reshape(SAMPLES, SAMPLES)


def model_of_pairs():
    """A functional model of two inputs that puts out what it saw: (left, right, a trained score)."""
    left, right = keras.Input((1,)), keras.Input((1,))
    score = keras.layers.Dense(1)(left)
    model = keras.Model([left, right], keras.layers.Concatenate()([left, right, score]))
    model.seen = SeenPairs()
    model.compile("sgd", loss=lambda y_true, y_pred: 0.0 * y_pred[:, 2], metrics=[model.seen])
    return model


def expected_counts(sequence, epoch):
    left, right, _ = sequence.pairs(epoch)
    matrix = np.zeros((SAMPLES, SAMPLES), dtype=int)
    np.add.at(matrix, (left, right), 1)
    return matrix


@pytest.mark.parametrize("workers", [1, 2])
def test_each_epoch_of_fit_gets_its_own_batches(workers):
    train = pair_sequence(workers=workers, max_queue_size=2)
    valid = pair_sequence(workers=workers, max_queue_size=2, frozen=True, seed=9)
    epochs = Epochs(train)
    model_of_pairs().fit(train, validation_data=valid, epochs=5, initial_epoch=2, verbose=0, callbacks=[epochs])

    assert list(epochs.seen) == [2, 3, 4]
    for epoch, seen in epochs.seen.items():
        np.testing.assert_array_equal(seen, expected_counts(train, epoch))
    assert len(epochs.validated) == 3
    for seen in epochs.validated:
        np.testing.assert_array_equal(seen, expected_counts(valid, 0))


@pytest.mark.parametrize("workers", [pytest.param(1, marks=pytest.mark.deep), 3])
def test_evaluate_shows_each_frozen_pair_once(workers):
    valid = pair_sequence(workers=workers, max_queue_size=2, frozen=True)
    model = model_of_pairs()
    for _ in range(2):
        model.evaluate(valid, verbose=0)
        np.testing.assert_array_equal(counts(model), expected_counts(valid, 0))


def test_a_shortened_epoch_with_workers_shows_no_pair_of_another_epoch():
    train = pair_sequence(workers=2, max_queue_size=2)
    epochs = Epochs(train)
    model_of_pairs().fit(train, epochs=2, steps_per_epoch=3, verbose=0, callbacks=[epochs])
    for epoch, seen in epochs.seen.items():
        assert seen.sum() == 12
        assert np.all(seen <= expected_counts(train, epoch))


@pytest.mark.jax
@pytest.mark.torch  # TensorFlow builds a model without drawing from the workers
def test_keras_alone_serves_batches_of_the_epoch_before(monkeypatch):
    """Why `on_epoch_end` empties the queues. Should this fail, Keras has mended its enqueuer, and ours can go."""
    monkeypatch.setattr(sequence, "_discard_drawn_ahead", lambda adapter: None)
    train = pair_sequence(workers=2, max_queue_size=2)
    epochs = Epochs(train)
    model_of_pairs().fit(train, epochs=2, verbose=0, callbacks=[epochs])
    assert not np.array_equal(epochs.seen[1], expected_counts(train, 1))


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.deep)])
def test_layers_augment_inside_fit(workers):
    noise = keras.layers.GaussianNoise(0.2)
    augmented = pair_sequence(workers=workers, augment=noise)
    direct = [tower for (towers, _) in pair_sequence(augment=noise) for tower in towers]

    class Sum(keras.metrics.Sum):
        def update_state(self, y_true, y_pred, sample_weight=None):
            super().update_state(y_pred[:, :2])

    model = model_of_pairs()
    model.compile("sgd", loss=lambda y_true, y_pred: 0.0 * y_pred[:, 2], metrics=[Sum(name="total")])
    history = model.fit(augmented, epochs=1, verbose=0)
    assert history.history["total"][0] == pytest.approx(sum(float(tower.sum()) for tower in direct), rel=1e-5)


# The warning that the epoch was never set

FORGOTTEN = "its set_epoch was never called"


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.deep)])
def test_forgetting_the_epoch_is_said_once(workers):
    train = pair_sequence(workers=workers)
    with pytest.warns(UserWarning, match=FORGOTTEN) as caught:
        for _ in range(2):
            model_of_pairs().fit(train, epochs=3, verbose=0)
    said = [str(warning.message) for warning in caught if FORGOTTEN in str(warning.message)]
    assert len(said) == 1
    assert "callbacks=[ks.callbacks.SetEpoch(sequence)]" in said[0]


def test_forgetting_is_said_in_the_second_epoch_of_a_built_model():
    train, model = pair_sequence(), model_of_pairs()
    model.fit(train, epochs=1, verbose=0)
    with pytest.warns(UserWarning, match=FORGOTTEN):
        model.fit(train, epochs=2, verbose=0)


def test_nothing_is_said_where_nothing_is_forgotten():
    """Warnings are errors, so these calls passing is the test."""
    train, other = pair_sequence(), pair_sequence()
    model = model_of_pairs()
    model.fit(train, epochs=1, verbose=0)
    model.fit(train, validation_data=other, epochs=1, verbose=0)
    for _ in range(3):
        model.evaluate(train, verbose=0)
    for _ in range(2):
        model_of_pairs().evaluate(train, verbose=0)
    model.fit(pair_sequence(frozen=True), validation_data=other, epochs=4, verbose=0)
    model.fit(train, validation_data=train, epochs=3, verbose=0, callbacks=[Epochs(train)])
    for item in (other, other):
        item.on_epoch_end()
        item.on_epoch_begin()  # called by hand


def test_hooks_reach_the_adapter_through_a_subclass():
    class Counting(PairSequence):
        ends = 0

        def on_epoch_end(self):
            self.ends += 1
            super().on_epoch_end()

        def on_epoch_begin(self):
            super().on_epoch_begin()

    train = Counting(np.arange(SAMPLES, dtype="float32")[:, None], LABELS, batch_size=4, workers=2)
    with pytest.warns(UserWarning, match="of this Counting, and its set_epoch"):
        model_of_pairs().fit(train, epochs=2, verbose=0)
    assert train.ends == 3


@pytest.mark.deep
def test_augmented_images_train_through_worker_threads():
    images = np.random.default_rng(0).random((SAMPLES, 6, 6, 1)).astype("float32")
    train = PairSequence(images, LABELS, batch_size=4, workers=2, augment=image_augmenter(rotation_range=20))
    left, right = keras.Input((6, 6, 1)), keras.Input((6, 6, 1))
    encoder = keras.Sequential([keras.layers.Flatten(), keras.layers.Dense(3)])
    outputs = keras.layers.Dense(1, "sigmoid")(keras.layers.Subtract()([encoder(left), encoder(right)]))
    model = keras.Model([left, right], outputs)
    model.compile("sgd", loss="binary_crossentropy")
    set_epoch = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: train.set_epoch(epoch))
    history = model.fit(train, epochs=2, verbose=0, callbacks=[set_epoch])
    assert np.all(np.isfinite(history.history["loss"]))
