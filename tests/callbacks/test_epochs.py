"""HardPairRefresh under Keras's own fit: when it refreshes, by which embeddings, what the model sees, and resumes."""

import copy
import pickle

import keras
import numpy as np
import pytest
from keras import layers

import keras_siamese as ks
from keras_siamese.callbacks import HardPairRefresh, SetEpoch
from keras_siamese.data import BalancedBatchSequence, PairSequence, TripletSequence
from keras_siamese.layers import DistanceLayer, SiameseWrapper

FEATURES = 5
EAGERLY = keras.backend.backend() == "tensorflow"  # a graph takes longer to trace than these runs take
RANKS = {"negative_ranks": (0, 3), "positive_ranks": (0, 2)}


def clusters(identities=9, samples=4, seed=1):
    rng = np.random.default_rng(seed)
    labels = np.repeat(np.arange(identities), samples)
    x = rng.normal(size=(identities, FEATURES))[labels] + 0.7 * rng.normal(size=(len(labels), FEATURES))
    return x.astype("float32"), labels


X, LABELS = clusters()


def siamese(distance="euclidean", loss=None, seed=3):
    keras.utils.set_random_seed(seed)
    encoder = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(4), layers.BatchNormalization()])
    encoder.run_eagerly = EAGERLY
    model = SiameseWrapper(encoder, distance=distance)
    model.compile(keras.optimizers.SGD(0.05), loss=loss or ks.losses.ContrastiveLoss(), run_eagerly=EAGERLY)
    model([X[:2]] * 3 if loss else [X[:2]] * 2)  # BackupAndRestore restores built models only
    return model


def pairs(**options):
    return PairSequence(X, LABELS, **{"batch_size": 12, "seed": 0, **options})


class Log(keras.callbacks.Callback):
    """The pairs that the sequence serves in each epoch, and embeddings by `predict` when it begins and when it ends."""

    def __init__(self, sequence):
        super().__init__()
        self.sequence, self.tables, self.at_start = sequence, {}, {}

    def on_epoch_begin(self, epoch, logs=None):
        encoder = getattr(self.model, "encoder", None)
        if encoder is not None:
            self.at_start[epoch] = encoder.predict(X, verbose=0)

    def on_epoch_end(self, epoch, logs=None):
        table = getattr(self.sequence, "pairs", None) or self.sequence.triplets
        self.tables[epoch] = [column.copy() for column in table(epoch)]


def fit(model, sequence, *callbacks, epochs=4, **options):
    log = Log(sequence)
    model.fit(sequence, epochs=epochs, callbacks=[*callbacks, log], verbose=0, shuffle=False, **options)
    return log


def hard_by_loop(embeddings, distance=lambda a, b: np.sum((a - b) ** 2), ranks=RANKS):
    """For each sample the sets of its hard negatives and positives."""
    negatives, positives = [], []
    for i in range(len(LABELS)):
        far = [distance(np.float64(embeddings[i]), np.float64(embeddings[j])) for j in range(len(LABELS))]
        others = sorted((j for j in range(len(LABELS)) if LABELS[j] != LABELS[i]), key=lambda j: far[j])
        own = sorted((j for j in range(len(LABELS)) if LABELS[j] == LABELS[i] and j != i), key=lambda j: -far[j])
        negatives.append(set(others[slice(*ranks["negative_ranks"])]))
        positives.append(set(own[slice(*ranks["positive_ranks"])]))
    return negatives, positives


def is_hard(table, embeddings, **options):
    negatives, positives = hard_by_loop(embeddings, **options)
    return all(b in (positives if same else negatives)[a] for a, b, same in zip(*table, strict=True))


@pytest.mark.parametrize(
    ("every", "start", "initial", "expected"),
    [
        pytest.param(1, 1, 0, [1, 2, 3, 4], marks=pytest.mark.deep),
        pytest.param(2, 1, 0, [1, 3], marks=pytest.mark.deep),
        (2, 0, 0, [0, 2, 4]),
        (3, 2, 0, [2]),
        (2, 1, 2, [2, 3]),
        (1, 9, 0, []),
    ],
)
def test_epochs_that_refresh(every, start, initial, expected):
    """A resumed fit refreshes in its first epoch from `start` on, then where an uninterrupted one would."""
    sequence = pairs()
    refresh = HardPairRefresh(sequence, every, start, **RANKS)
    fit(siamese(), sequence, refresh, epochs=5, initial_epoch=initial)
    assert refresh.refreshed == expected
    assert (refresh.candidates is None) == (expected == [])


@pytest.mark.each_backend
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.deep)])
def test_pairs_are_hard_by_the_weights_at_the_refresh(workers):
    sequence = pairs(workers=workers, max_queue_size=2)
    log = fit(siamese(), sequence, HardPairRefresh(sequence, every=2, start=1, **RANKS), epochs=5)
    uniform = pairs()
    for column, expected in zip(log.tables[0], uniform.pairs(0), strict=True):
        np.testing.assert_array_equal(column, expected)
    for epoch, refreshed in {1: 1, 2: 1, 3: 3, 4: 3}.items():
        assert is_hard(log.tables[epoch], log.at_start[refreshed])
        assert not np.array_equal(log.tables[epoch][1], uniform.pairs(epoch)[1])
    # The loop tells the weights of one epoch from those of another, and near from far.
    assert not is_hard(log.tables[4], log.at_start[0])
    assert not is_hard(log.tables[4], log.at_start[3], distance=lambda a, b: -np.sum((a - b) ** 2))


@pytest.mark.each_backend
@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.deep)])
@pytest.mark.parametrize("start", [0, pytest.param(1, marks=pytest.mark.deep)])
def test_the_model_is_shown_the_hard_pairs(workers, start):
    """What reaches the model in an epoch, also the first, whose first batches Keras looks at before it begins."""
    x = np.arange(len(LABELS), dtype="float32")[:, None]

    class Shown(keras.metrics.Metric):
        def __init__(self):
            super().__init__(name="shown")
            self.counts = self.add_weight(shape=(len(x) ** 2,), initializer="zeros", name="counts")

        def update_state(self, y_true, y_pred, sample_weight=None):
            place = keras.ops.cast(keras.ops.round(y_pred[:, 0] * len(x) + y_pred[:, 1]), "int32")
            self.counts.assign_add(keras.ops.sum(keras.ops.one_hot(place, len(x) ** 2), axis=0))

        def result(self):
            return keras.ops.sum(self.counts)

        def reset_state(self):
            self.counts.assign(keras.ops.zeros((len(x) ** 2,)))

    class Seen(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.epochs = {}

        def on_train_batch_end(self, batch, logs=None):
            self.latest = keras.ops.convert_to_numpy(self.model.shown.counts).reshape(len(x), len(x))

        def on_epoch_end(self, epoch, logs=None):
            self.epochs[epoch] = self.latest

    left, right = keras.Input((1,)), keras.Input((1,))
    encoder = layers.Dense(2, name="encoder")
    distance = DistanceLayer("euclidean")([encoder(left), encoder(right)])
    model = keras.Model([left, right], layers.Concatenate()([left, right, distance]))
    model.shown = Shown()
    model.compile("sgd", loss=lambda y_true, y_pred: 0.0 * y_pred[:, 2], metrics=[model.shown], run_eagerly=EAGERLY)
    sequence = PairSequence(x, LABELS, batch_size=6, workers=workers, max_queue_size=2)
    seen, ranks = Seen(), {"negative_ranks": (0, 1), "positive_ranks": (0, 1)}
    refresh = HardPairRefresh(sequence, start=start, **ranks)
    model.fit(sequence, epochs=3, callbacks=[refresh, SetEpoch(sequence), seen], verbose=0)
    # The encoder is linear in one number and is not trained, so the hardest impostors are the nearest in that number.
    hardest = [min(abs(i - j) for j in range(len(x)) if LABELS[j] != LABELS[i]) for i in range(len(x))]
    for epoch, counts in seen.epochs.items():
        impostors = [(a, b) for a, b in np.argwhere(counts) if LABELS[a] != LABELS[b]]
        assert counts.sum() == len(x)
        assert impostors
        assert all(abs(a - b) == hardest[a] for a, b in impostors) == (epoch >= start)


def test_cosine_models_are_refreshed_by_cosine():
    sequence = pairs()
    log = fit(siamese("cosine"), sequence, HardPairRefresh(sequence, **RANKS), epochs=3)

    def cosine(a, b):
        return 1 - np.dot(a, b) / np.linalg.norm(a) / np.linalg.norm(b)

    assert is_hard(log.tables[2], log.at_start[2], distance=cosine)
    assert not is_hard(log.tables[2], log.at_start[2])


def test_triplets_are_refreshed():
    sequence = TripletSequence(X, LABELS, batch_size=12)
    log = fit(siamese(loss=ks.losses.TripletLoss()), sequence, HardPairRefresh(sequence, **RANKS), epochs=2)
    negatives, positives = hard_by_loop(log.at_start[1])
    for anchor, positive, negative in zip(*log.tables[1], strict=True):
        assert positive in positives[anchor]
        assert negative in negatives[anchor]


@pytest.mark.parametrize(
    "loss", [ks.losses.SupConLoss(), ks.losses.NCALoss(distance="cosine"), ks.losses.BatchTripletLoss()]
)
def test_batches_of_identities_are_refreshed(loss):
    """By the encoder's embeddings when epoch 1 begins, as they are or, for a loss on cosines, their directions."""
    keras.utils.set_random_seed(3)
    encoder = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(4)])
    encoder.compile(keras.optimizers.SGD(0.05), loss=loss, run_eagerly=EAGERLY)
    sequence = BalancedBatchSequence(X, LABELS, classes_per_batch=3, samples_per_class=2, batches_per_epoch=9)
    at_start = []
    seen = keras.callbacks.LambdaCallback(on_epoch_begin=lambda *_: at_start.append(encoder.predict(X, verbose=0)))
    refresh = HardPairRefresh(sequence, **RANKS)
    encoder.fit(sequence, epochs=2, callbacks=[SetEpoch(sequence), refresh, seen], verbose=0)
    z = at_start[1].astype("float64")
    if not isinstance(loss, ks.losses.BatchTripletLoss):
        z /= np.linalg.norm(z, axis=1, keepdims=True)
    means = [z[identity == LABELS].mean(axis=0) for identity in range(9)]
    for identity, near in enumerate(refresh.candidates):
        others = sorted((j for j in range(9) if j != identity), key=lambda j: np.sum((means[identity] - means[j]) ** 2))
        assert near.tolist() == others[:3]
    uniform = BalancedBatchSequence(X, LABELS, classes_per_batch=3, samples_per_class=2, batches_per_epoch=9)
    np.testing.assert_array_equal(sequence.identities, uniform.identities)
    assert not np.array_equal(sequence.rows(1), uniform.rows(1))


def test_training_is_the_same_with_a_refresh_that_never_comes():
    one, other = siamese(), siamese()
    sequence = pairs()
    fit(one, sequence, epochs=2)
    again = pairs()
    fit(other, again, HardPairRefresh(again, start=2, **RANKS), epochs=2)
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# Resuming, copying


@pytest.mark.each_backend
def test_a_resumed_run_goes_on_as_if_uninterrupted(tmp_path):
    """BackupAndRestore after a failure, with every=1: the same pairs and the same weights."""

    class Fail(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 3:
                raise RuntimeError("the machine stopped")

    whole = pairs()
    model = siamese()
    expected = fit(model, whole, HardPairRefresh(whole, **RANKS), epochs=5)

    backup = lambda: keras.callbacks.BackupAndRestore(str(tmp_path / "backup"))  # noqa: E731
    interrupted = pairs()
    with pytest.raises(RuntimeError, match="the machine stopped"):
        fit(siamese(), interrupted, HardPairRefresh(interrupted, **RANKS), Fail(), backup(), epochs=5)
    resumed, sequence = siamese(seed=99), pairs()
    refresh = HardPairRefresh(sequence, **RANKS)
    log = fit(resumed, sequence, refresh, backup(), epochs=5)
    assert refresh.refreshed == [3, 4]
    for epoch in (3, 4):
        for a, b in zip(log.tables[epoch], expected.tables[epoch], strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(resumed.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_second_fit_begins_uniform():
    sequence = pairs()
    refresh = HardPairRefresh(sequence, **RANKS)
    fit(siamese(), sequence, refresh, epochs=2)
    log = fit(siamese(), sequence, refresh, epochs=2)
    for column, expected in zip(log.tables[0], pairs().pairs(0), strict=True):
        np.testing.assert_array_equal(column, expected)
    assert refresh.refreshed == [1]
    assert is_hard(log.tables[1], log.at_start[1])


def test_fitting_on_in_the_same_process_refreshes_the_epoch_at_hand():
    """The table of epoch 1 was drawn by the first fit; the second, which goes on there, draws it anew."""
    sequence, model = pairs(), siamese()
    refresh = HardPairRefresh(sequence, **RANKS)
    fit(model, sequence, refresh, epochs=2)
    log = fit(model, sequence, refresh, epochs=2, initial_epoch=1)
    assert is_hard(log.tables[1], log.at_start[1])


@pytest.mark.parametrize("make", [HardPairRefresh, SetEpoch])
def test_copies_share_the_sequence_and_not_the_model(make):
    sequence = pairs()
    callback = make(sequence)
    fit(siamese(), sequence, callback, epochs=2)
    copied = copy.deepcopy([callback])[0]
    assert type(copied) is make
    assert copied.sequence is sequence
    assert copied.model is None
    if make is HardPairRefresh:
        assert copied.refreshed == []
        assert (copied.every, copied.start, copied.negative_ranks) == (1, 1, (0, 50))
    log = fit(siamese(), sequence, copied, epochs=2)
    assert make is SetEpoch or is_hard(log.tables[1], log.at_start[1], ranks=dict.fromkeys(RANKS, (0, 50)))


def test_a_refreshed_sequence_pickles_with_its_candidates():
    sequence = pairs()
    fit(siamese(), sequence, HardPairRefresh(sequence, **RANKS), epochs=2)
    for a, b in zip(pickle.loads(pickle.dumps(sequence)).pairs(7), sequence.pairs(7), strict=True):
        np.testing.assert_array_equal(a, b)


# Models and errors


def test_any_model_with_an_encoder_in_it():
    left, right = keras.Input((FEATURES,)), keras.Input((FEATURES,))
    encoder = keras.Sequential([layers.Dense(4)])
    model = keras.Model([left, right], DistanceLayer("euclidean")([encoder(left), encoder(right)]))
    model.compile("sgd", loss=ks.losses.ContrastiveLoss(), run_eagerly=EAGERLY)
    sequence = pairs()
    refresh = HardPairRefresh(sequence, **RANKS)
    fit(model, sequence, SetEpoch(sequence), refresh, epochs=2)
    assert refresh.refreshed == [1]


def test_a_model_without_an_encoder_is_refused_when_training_begins():
    left, right = keras.Input((FEATURES,)), keras.Input((FEATURES,))
    model = keras.Model([left, right], layers.Dense(1)(layers.Concatenate()([left, right])))
    model.compile("sgd", loss="mse", run_eagerly=EAGERLY)
    sequence = pairs()
    with pytest.raises(ValueError, match="No encoder found"):
        fit(model, sequence, HardPairRefresh(sequence, start=3), epochs=1)


def test_embeddings_that_are_not_finite_leave_the_pairs_as_they_are():
    sequence, model = pairs(), siamese()
    model.encoder.layers[0].kernel.assign(np.full((FEATURES, 4), np.nan))
    refresh = HardPairRefresh(sequence, **RANKS)
    with pytest.warns(UserWarning, match="Embeddings are NaN or infinite when epoch 2 begins"):
        log = fit(model, sequence, refresh, epochs=2)
    assert refresh.refreshed == []
    np.testing.assert_array_equal(log.tables[1][1], pairs().pairs(1)[1])


def test_another_sequence_than_fit_is_given_is_refused():
    with pytest.raises(ValueError, match="`sequence` must be the one that fit is given, PairSequence"):
        fit(siamese(), pairs(), HardPairRefresh(pairs()))


def test_a_frozen_sequence_is_refused():
    sequence = pairs(frozen=True)
    with pytest.raises(ValueError, match="`refresh` needs a sequence that draws new samples each epoch"):
        fit(siamese(), sequence, HardPairRefresh(sequence))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"every": 0}, ValueError, "`every` must be at least 1; got 0"),
        ({"start": -1}, ValueError, "`start` must be at least 0; got -1"),
        ({"negative_ranks": (5, 5)}, ValueError, r"`negative_ranks\[1\]` must be at least 6; got 5"),
        ({"positive_ranks": 3}, ValueError, r"`positive_ranks` must be \(lo, hi\); got 3"),
        ({"sequence": X}, TypeError, "`sequence` must be a PairSequence, a TripletSequence or.*; got a ndarray"),
    ],
)
def test_wrong_arguments(options, error, message):
    with pytest.raises(error, match=message):
        HardPairRefresh(**{"sequence": pairs(), **options})


@pytest.mark.deep
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_worker_processes_serve_the_refreshed_pairs():
    """Each epoch's processes are begun with the sequence as it is then: losses are those of one thread.

    Keras forks; JAX warns of it, in a hook whose error pytest warns of in turn.
    """
    losses = []
    for options in ({}, {"workers": 2, "use_multiprocessing": True, "max_queue_size": 2}):
        sequence, model, history = pairs(**options), siamese(), keras.callbacks.History()
        fit(model, sequence, HardPairRefresh(sequence, every=1, start=1, **RANKS), history, epochs=3)
        losses.append(history.history["loss"])
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


@pytest.mark.deep
def test_a_search_refreshes_in_every_trial(tmp_path):
    """KerasTuner hands each trial a copy of the callbacks; all of them draw the trial's own hard pairs."""
    tuner_module = pytest.importorskip("keras_tuner")
    sequence = pairs()
    shown = []

    def build(hp):
        hp.Choice("unused", [1, 2])
        return siamese()

    class Shown(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            shown.append((epoch, is_hard(sequence.pairs(epoch), self.model.encoder.predict(X, verbose=0))))

    objective = tuner_module.Objective("loss", "min")
    search = tuner_module.GridSearch(build, objective, directory=tmp_path, max_trials=2)
    callbacks = [HardPairRefresh(sequence, every=1, start=1, **RANKS), Shown()]
    search.search(sequence, epochs=2, callbacks=callbacks, verbose=0)
    assert shown == [(0, False), (1, True)] * 2


def test_set_epoch_tells_the_sequence():
    left, right = keras.Input((FEATURES,)), keras.Input((FEATURES,))
    encoder = keras.Sequential([layers.Dense(4)])
    model = keras.Model([left, right], DistanceLayer("euclidean")([encoder(left), encoder(right)]))
    model.compile("sgd", loss=ks.losses.ContrastiveLoss(), run_eagerly=EAGERLY)
    sequence, seen = pairs(), []
    note = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: seen.append((epoch, sequence.epoch)))
    fit(model, sequence, SetEpoch(sequence), note, epochs=3)
    assert seen == [(0, 0), (1, 1), (2, 2)]
    with pytest.raises(TypeError, match=r"`sequence` must have a method set_epoch\(epoch\); got a list"):
        SetEpoch([1])
