"""Facts of the model: modes of BatchNormalization, sizes of steps, and the probe, which restores all weights."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import keras_siamese as ks
from keras_siamese.diagnosis.facts.batches import batches_of
from keras_siamese.diagnosis.facts.model import (
    against_new,
    batch_dependence,
    continued,
    initial_values,
    kernels_of,
    make_new,
    mode_eers,
    moved_share,
    probe,
    rate_left,
    sampled_kernels,
    scheduled_rates,
    statistics_off,
    trainable_share,
    update_size,
)
from keras_siamese.scoring import has_finite_weights
from tests.support import plantings
from tests.support.measured import encoder


@pytest.mark.each_backend
def test_steps_are_measured_against_the_weights():
    model = encoder()
    before = sampled_kernels(model)
    assert before.shape == (24 * 12 + 12 * 6,)
    for weight in model.trainable_weights:
        weight.assign(1.1 * ops.convert_to_tensor(weight))
    assert update_size(before, sampled_kernels(model)) == pytest.approx(0.1, rel=1e-4)
    assert np.isnan(update_size(before, before[:5]))
    model.trainable = False
    assert sampled_kernels(model).shape == (0,)


@pytest.mark.each_backend
def test_modes_differ_by_the_running_statistics_and_leave_no_trace():
    siamese = ks.SiameseWrapper(encoder(batch_normalization=True))
    x, labels = plantings.train_part()
    batches = batches_of(ks.data.PairSequence(x[:200], labels[:200], batch_size=50), count=3)
    siamese(batches[0][0])
    kept = [np.array(ops.convert_to_numpy(weight)) for weight in siamese.weights]
    eers = mode_eers(siamese, batches)
    assert set(eers) == {"training", "inference"} and all(0 <= eer <= 1 for eer in eers.values())
    for weight, value in zip(siamese.weights, kept, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
    assert mode_eers(ks.SiameseWrapper(encoder()), batches) == {}


def test_broken_running_statistics_show_as_a_gap(rng):
    model = encoder(batch_normalization=True)
    siamese = ks.SiameseWrapper(model)
    labels = np.repeat(np.arange(40), 6)
    x = (5 * rng.normal(size=(40, 24))[labels] + 0.3 * rng.normal(size=(240, 24))).astype("float32")
    sequence = ks.data.PairSequence(x, labels, batch_size=120)
    siamese(sequence[0][0])
    norm = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    norm.moving_variance.assign(np.r_[1e-6, np.full(11, 1e6)].astype("float32"))  # only one unit is left
    eers = mode_eers(siamese, batches_of(sequence))
    assert eers["training"] < 0.1 and eers["inference"] - eers["training"] > 0.1


@pytest.mark.each_backend
def test_running_statistics_are_compared_with_those_of_a_batch(rng):
    model = keras.Sequential([keras.Input((4,)), layers.BatchNormalization(momentum=0.9999), layers.Dense(2)])
    siamese = ks.SiameseWrapper(model)
    x = (rng.normal(size=(200, 4)) * [1.0, 8.0, 8.0, 8.0] + [1.0, 0.0, 0.0, 0.0]).astype("float32")
    siamese([x, x])
    kept = [np.array(ops.convert_to_numpy(weight)) for weight in siamese.weights]
    # New layers have mean 0 and variance 1: three of the channels have eight times that spread, 2 to the power of 3.
    assert statistics_off(siamese, [x, x]) == pytest.approx(3, abs=0.15)
    for weight, value in zip(siamese.weights, kept, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
    norm = model.layers[0]
    norm.moving_mean.assign(x.mean(axis=0))
    norm.moving_variance.assign(x.var(axis=0))
    assert statistics_off(siamese, [x, x]) == pytest.approx(0, abs=0.05)
    norm.moving_mean.assign(x.mean(axis=0) + 2 * x.std(axis=0))
    assert statistics_off(siamese, x) == pytest.approx(2, abs=0.05)
    model.trainable = False  # training does not change them
    assert statistics_off(siamese, [x, x]) is None


def test_share_of_the_weights_that_training_may_change():
    model = encoder()
    assert trainable_share(model) == 1.0
    model.layers[0].trainable = False
    assert trainable_share(model) == pytest.approx(12 * 6 / (24 * 12 + 12 * 6))


@pytest.mark.each_backend
def test_a_probe_measures_steps_and_puts_everything_back():
    x, labels = plantings.train_part()
    sequence = ks.data.PairSequence(x, labels, batch_size=50)
    found = {}
    for rate in (1e-6, 1e-2):
        model = ks.SiameseWrapper(encoder())
        model.compile(keras.optimizers.Adam(rate), loss=ks.losses.ContrastiveLoss())
        model.train_on_batch(*sequence[0])
        kept = [np.array(ops.convert_to_numpy(one)) for one in [*model.variables, *model.optimizer.variables]]
        found[rate] = probe(model, sequence, steps=5)
        for variable, value in zip([*model.variables, *model.optimizer.variables], kept, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    assert found[1e-6]["update_size_first"] < 1e-3 < 1e-2 < found[1e-2]["update_size_first"]
    assert found[1e-2]["probe_loss_fallen"] > found[1e-6]["probe_loss_fallen"]


@pytest.mark.parametrize(("steps", "tolerance"), [(10, 1e-3), pytest.param(100, 0.3, marks=pytest.mark.deep)])
@pytest.mark.parametrize("optimizer", ["adam", pytest.param("sgd", marks=pytest.mark.deep)])
def test_a_probe_foretells_how_far_an_epoch_goes(optimizer, steps, tolerance):
    """The probe is exact if it takes all steps of the epoch, and close if it extrapolates."""
    x, labels = plantings.train_part()
    sequence = ks.data.PairSequence(x, labels, batch_size=16, pairs_per_epoch=16 * steps, frozen=True)
    model = ks.SiameseWrapper(encoder())
    model.compile(optimizer, loss=ks.losses.ContrastiveLoss())
    model.fit(sequence, epochs=1, verbose=0)
    foretold = probe(model, sequence)["update_size_first"]
    before = sampled_kernels(model)
    model.fit(sequence, epochs=1, shuffle=False, verbose=0)
    epoch = update_size(before, sampled_kernels(model))
    assert foretold == pytest.approx(epoch, rel=tolerance)


def test_a_walk_is_continued_by_its_own_power():
    steps = np.arange(1, 21)
    for power in (0.5, 0.8, 1.0):
        walked = (0.01 * steps**power).tolist()
        assert continued(walked, 500) == pytest.approx(0.01 * 500**power)
    assert continued([0.3, 0.4], 2) == 0.4
    assert continued([0.01], 9) == pytest.approx(0.09), "no power can be fitted to one step, so it is 1"
    assert continued([0.0, 0.0], 9) == 0.0
    assert np.isnan(continued([float("nan")] * 3, 9))


def test_a_probe_needs_a_compiled_model_and_a_sequence():
    x, labels = plantings.held_out_part()
    with pytest.raises(ValueError, match="got no optimizer"):
        ks.diagnose(ks.SiameseWrapper(encoder()), validation=(x, labels), probe=True)
    model = ks.SiameseWrapper(encoder())
    model.compile("adam", loss=ks.losses.ContrastiveLoss())
    with pytest.raises(ValueError, match="got a tuple"):
        ks.diagnose(model, validation=(x, labels), train=(x, labels), probe=True)


@pytest.mark.each_backend
def test_weights_that_are_not_finite_get_new_initial_values():
    model = keras.Sequential([keras.Input((5, 3)), layers.LSTM(4), layers.BatchNormalization(), layers.Dense(2)])
    kept = [np.array(one) for one in model.layers[1].get_weights()]
    for layer in (model.layers[0], model.layers[2]):
        layer.set_weights([np.full_like(one, np.nan) for one in layer.get_weights()])
    make_new(model, only_broken=True)
    assert has_finite_weights(model) and all(map(np.array_equal, kept, model.layers[1].get_weights()))
    assert all(np.ptp(model.layers[at].get_weights()[0]) > 0 for at in (0, 2))
    make_new(model)
    assert not np.array_equal(kept[2], model.layers[1].get_weights()[2]) or np.ptp(model.layers[0].get_weights()[0]) > 0


@pytest.mark.each_backend
def test_kernels_that_move_and_kernels_that_stand():
    model = encoder(batch_normalization=True)
    model.layers[0].trainable = False
    before = kernels_of(model)
    assert [size for _, size, _ in before] == [24 * 12, 12 * 6]
    last = next(layer for layer in reversed(model.layers) if layer.weights)
    last.kernel.assign(np.array(ops.convert_to_numpy(last.kernel)) + np.eye(12, 6))
    assert moved_share(before, kernels_of(model)) == pytest.approx(12 * 6 / (24 * 12 + 12 * 6))
    assert moved_share(before, before) == 0 and np.isnan(moved_share([], []))


class Called(layers.Layer):
    """Calls its layer with `training` whatever the mode, as a backbone is called wrongly."""

    def __init__(self, layer, training):
        super().__init__()
        self.layer, self.training = layer, training

    def call(self, x):
        return self.layer(x) if self.training is None else self.layer(x, training=self.training)


@pytest.mark.each_backend
@pytest.mark.parametrize("training", [None, True])
def test_embeddings_depend_on_their_batch_if_training_stands_in_the_call(training, rng):
    parts = [keras.Input((24,)), layers.Dense(8), Called(layers.BatchNormalization(), training), layers.Dense(4)]
    x = rng.normal(size=(40, 24)).astype("float32")
    found = batch_dependence(keras.Sequential(parts), x)
    assert found > 0.05 if training else found < 1e-4
    noisy = keras.Sequential([*parts, Called(layers.Dropout(0.5), True)])
    assert batch_dependence(noisy, x) is None  # embeddings are random anyway


@pytest.mark.each_backend
def test_weights_tell_how_far_a_run_has_come():
    own, new = encoder(), encoder()
    found = against_new(own, own)
    assert found == {"weights_grown": 1.0, "biases_moved": 0.0}
    for weight, fresh in zip(own.trainable_weights, new.trainable_weights, strict=True):
        value = ops.convert_to_numpy(fresh)
        weight.assign(3 * value if len(value.shape) > 1 else value + 0.5)
    kernels = np.concatenate([ops.convert_to_numpy(one).ravel() for one in own.trainable_weights if one.ndim > 1])
    found = against_new(own, new)
    assert found["weights_grown"] == pytest.approx(3)
    assert found["biases_moved"] == pytest.approx(0.5 / np.sqrt(np.mean(kernels**2)))
    first = own.trainable_weights[0]
    first.assign(ops.convert_to_tensor(new.trainable_weights[0]))
    assert against_new(own, new)["weights_grown"] == pytest.approx(1)  # the least of all kernels
    own.trainable = new.trainable = False
    assert against_new(own, new) == {}


def test_what_a_schedule_leaves_of_the_rate():
    assert rate_left([1.0] * 8) == {"rate_left": 1.0} and rate_left([1.0, 0.1, 0.1]) == {}
    assert rate_left([0.1, 0.2, *6 * [0.01]])["rate_left"] == pytest.approx(0.05)  # a warm-up, then a fall
    assert rate_left([float("nan"), *8 * [0.5]]) == {"rate_left": 1.0} and rate_left([0.0] * 8) == {}


@pytest.mark.each_backend
def test_the_rates_of_a_schedule_so_far():
    model = encoder()
    assert scheduled_rates(model) == []
    model.compile(keras.optimizers.SGD(0.1), loss="mse")
    assert scheduled_rates(model) == []
    model.compile(keras.optimizers.SGD(keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.5)), loss="mse")
    model.optimizer.iterations.assign(30)
    found = scheduled_rates(model)
    assert len(found) == 16 and found[0] == pytest.approx(0.1) and found[-1] == pytest.approx(0.0125)


class Halved(keras.optimizers.schedules.LearningRateSchedule):
    """A schedule of a user's own, without a configuration."""

    def __init__(self, first):
        self.first = first

    def __call__(self, step):
        return self.first * 0.5 ** (step / 10)


def test_the_rates_of_a_schedule_that_keras_cannot_make_again(caplog):
    model = encoder()
    model.compile(keras.optimizers.SGD(Halved(0.1)), loss="mse")
    model.optimizer.iterations.assign(30)
    found = scheduled_rates(model)
    assert found[0] == pytest.approx(0.1) and found[-1] == pytest.approx(0.0125)
    model.optimizer._learning_rate.first = "a mistake"
    with caplog.at_level("INFO", logger="keras_siamese"):
        assert scheduled_rates(model) == [] and "The rates of 'Halved' are not known: TypeError" in caplog.text


class Unrepeatable(layers.Dense):
    """A layer that cannot be made again from its configuration."""

    def get_config(self):
        raise NotImplementedError("no configuration")


def test_a_layer_that_cannot_be_made_again_gets_normal_numbers_and_this_is_logged(caplog):
    layer = Unrepeatable(3)
    layer.build((None, 4))
    with caplog.at_level("INFO", logger="keras_siamese"):
        kernel, bias = initial_values(layer, layer.weights)
    assert np.ptp(kernel) > 0 and not bias.any() and "no configuration" in caplog.text and layer.name in caplog.text
