"""`fit`: epochs are set before anybody asks, callbacks see the data, losses that cannot work are refused."""

import keras
import numpy as np
import pytest

from keras_siamese.layers import SiameseWrapper
from keras_siamese.losses import ContrastiveLoss, TripletLoss, WeightedBinaryCrossentropy
from tests.support.encoders import SAME, N, dense_encoder


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


@pytest.mark.each_backend
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


@pytest.mark.each_backend
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
        ({"distance": "angular"}, ContrastiveLoss(margin=1.1), "must be at most 1"),
        ({}, TripletLoss(margin=2.5), "`margin` of TripletLoss must be at most 2"),
        ({"head": "logistic"}, ContrastiveLoss(), r"ContrastiveLoss expects y_pred to hold distances.*scores"),
        ({}, WeightedBinaryCrossentropy(), r"WeightedBinaryCrossentropy expects y_pred to hold scores.*distances"),
        ({"head": "logistic"}, WeightedBinaryCrossentropy(from_logits=True), "use from_logits=False"),
    ]:
        model = SiameseWrapper(dense_encoder(unit), **options)
        model.compile("adam", loss=loss, run_eagerly=True)
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
