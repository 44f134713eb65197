"""What is measured of a model and its training: steps, modes, first inputs, untrained copies, what batches show."""

import random

import keras
import numpy as np
import pytest
from keras import ops

import keras_siamese as ks
from keras_siamese.diagnosis.evidence import Evidence
from keras_siamese.diagnosis.facts import model as training
from keras_siamese.diagnosis.facts.measure import mined_order
from keras_siamese.scoring import Trials, as_siamese, score
from tests.support import plantings


def encoder(batch_normalization=False, rescaling=None):
    layers = [keras.Input((24,))]
    layers += [keras.layers.Rescaling(1 / rescaling)] if rescaling else []
    layers += [keras.layers.Dense(12, activation="relu")]
    layers += [keras.layers.BatchNormalization()] if batch_normalization else []
    return keras.Sequential([*layers, keras.layers.Dense(6), keras.layers.UnitNormalization()])


def facts_of(model, train=None, source=None, **options):
    x, labels = plantings.held_out_part()
    siamese = as_siamese(model, unshared=True)
    trials = Trials.from_labels(x[:60], labels[:60])
    trained = None if train is None else score(siamese, Trials.from_labels(*train))
    evidence = Evidence({}, score(siamese, trials), trained, siamese=siamese, source=source, **options)
    return evidence.facts


def test_steps_are_measured_against_the_weights():
    model = encoder()
    before = training.sampled_kernels(model)
    assert before.shape == (24 * 12 + 12 * 6,)
    for weight in model.trainable_weights:
        weight.assign(1.1 * ops.convert_to_tensor(weight))
    assert training.update_size(before, training.sampled_kernels(model)) == pytest.approx(0.1, rel=1e-4)
    assert np.isnan(training.update_size(before, before[:5]))


def test_modes_differ_by_the_running_statistics_and_leave_no_trace():
    siamese = ks.SiameseWrapper(encoder(batch_normalization=True))
    x, labels = plantings.train_part()
    batches = training.batches_of(ks.data.PairSequence(x[:200], labels[:200], batch_size=50), count=3)
    siamese(batches[0][0])
    kept = [np.array(ops.convert_to_numpy(weight)) for weight in siamese.weights]
    eers = training.mode_eers(siamese, batches)
    assert set(eers) == {"training", "inference"} and all(0 <= eer <= 1 for eer in eers.values())
    for weight, value in zip(siamese.weights, kept, strict=True):
        np.testing.assert_array_equal(ops.convert_to_numpy(weight), value)
    assert training.mode_eers(ks.SiameseWrapper(encoder()), batches) == {}


def test_broken_running_statistics_show_as_a_gap(rng):
    model = encoder(batch_normalization=True)
    siamese = ks.SiameseWrapper(model)
    labels = np.repeat(np.arange(40), 6)
    x = (5 * rng.normal(size=(40, 24))[labels] + 0.3 * rng.normal(size=(240, 24))).astype("float32")
    sequence = ks.data.PairSequence(x, labels, batch_size=120)
    siamese(sequence[0][0])
    norm = next(layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization))
    norm.moving_variance.assign(np.r_[1e-6, np.full(11, 1e6)].astype("float32"))  # one unit is all that is left
    eers = training.mode_eers(siamese, training.batches_of(sequence))
    assert eers["training"] < 0.1 and eers["inference"] - eers["training"] > 0.1


def test_what_the_first_layer_sees_is_after_the_rescaling():
    x = np.random.default_rng(0).normal(size=(50, 24)).astype("float32")
    assert np.std(training.first_inputs(encoder(rescaling=100.0), 100 * x)) == pytest.approx(1, abs=0.05)
    assert np.std(training.first_inputs(encoder(), 100 * x)) == pytest.approx(100, rel=0.05)
    inner = keras.Sequential([keras.Input((24,)), keras.layers.Rescaling(0.01), encoder()])
    assert np.std(training.first_inputs(inner, 100 * x)) == pytest.approx(1, abs=0.05)


def test_an_untrained_copy_leaves_the_original_and_the_generator_alone():
    model = encoder()
    x = np.ones((3, 24), "float32")
    own, state = ops.convert_to_numpy(model(x)), random.getstate()
    copied = training.untrained_embeddings(model, x)
    assert copied.shape == (3, 6) and not np.allclose(copied, own)
    assert random.getstate() == state
    np.testing.assert_array_equal(ops.convert_to_numpy(model(x)), own)
    model.trainable = False
    np.testing.assert_allclose(training.untrained_embeddings(model, x), own, rtol=1e-5)


def test_a_subclassed_encoder_that_cannot_be_copied_has_no_untrained_twin():
    class Own(keras.Model):
        def __init__(self, size):
            super().__init__()
            self.dense = keras.layers.Dense(size)

        def call(self, x):
            return self.dense(x)

    assert training.untrained_embeddings(Own(3), np.ones((2, 4), "float32")) is None


def test_share_of_the_weights_that_training_may_change():
    model = encoder()
    assert training.trainable_share(model) == 1.0
    model.layers[0].trainable = False
    assert training.trainable_share(model) == pytest.approx(12 * 6 / (24 * 12 + 12 * 6))


def test_mined_triplets_in_order_equal_a_loop(rng):
    z, labels = rng.normal(size=(12, 3)).astype("float32"), np.repeat([0, 1, 2], 4)
    distance = ks.distances.get("euclidean")
    matrix = np.linalg.norm(z[:, None] - z[None], axis=2)
    for positives, pick_near in (("hard", max), ("easy", min)):
        for negatives, pick_far in (("hard", min), ("easy", max)):
            expected = []
            for a in range(12):
                near = [matrix[a, p] for p in range(12) if p != a and labels[p] == labels[a]]
                far = [matrix[a, n] for n in range(12) if labels[n] != labels[a]]
                expected.append(float(pick_near(near) < pick_far(far)))
            assert mined_order(distance, z, labels, positives, negatives) == expected


def test_facts_of_a_pair_run_name_its_make_up():
    x, labels = plantings.train_part()
    sequence = ks.data.PairSequence(x, labels, batch_size=50, positive_fraction=0.25)
    model = ks.SiameseWrapper(encoder())
    loss = ks.losses.ContrastiveLoss(margin=0.5)
    facts = facts_of(model, (x, labels), sequence, loss=loss, positive_fraction=0.25, bounds=model.bounds)
    assert facts["weighted_positive_fraction"] == 0.25 and facts["margin"] == 0.5 and facts["reach"] == 2.0
    assert facts["drawn_identities"] == 60 and facts["share_of_two"] < 0.1
    assert facts["batch_identities"] > 30 and facts["duplicates"] == 0.0
    assert abs(facts["drawn_towers"]) < 0.1 and facts["input_scale"] == pytest.approx(2.0, abs=0.3)
    assert facts["untrained_eer"] > 0.2 and facts["unshared"] == 0.0
    assert facts.words["loss"] == "ContrastiveLoss"
    assert all(isinstance(value, float) for value in facts.numbers.values())


def test_facts_of_two_encoders_say_so():
    left, right = keras.Input((24,)), keras.Input((24,))
    model = keras.Model([left, right], ks.layers.DistanceLayer("euclidean")([encoder()(left), encoder()(right)]))
    x, labels = plantings.train_part()
    facts = facts_of(model, (x[:100], labels[:100]))
    assert facts["unshared"] == 1.0 and "swap_gain" not in facts
    with pytest.raises(ValueError, match="No encoder found"):
        as_siamese(model)


def test_a_diagnosed_encoder_with_running_statistics_trains_on():
    """On JAX the untrained copy took the buffers of moving means with it, and the next `fit` or `predict` failed."""
    x, labels = plantings.train_part()
    model = encoder(batch_normalization=True)
    model.compile("adam", loss=ks.losses.SupConLoss())
    batches = ks.data.BalancedBatchSequence(x, labels, classes_per_batch=4, samples_per_class=4, batches_per_epoch=2)
    monitor = ks.callbacks.DivergenceMonitor(plantings.held_out_part())
    for epoch in range(2):
        model.fit(batches, initial_epoch=epoch, epochs=epoch + 1, callbacks=[monitor], verbose=0)
        assert monitor.diagnosis is not None
        assert np.isfinite(model.predict(x[:8], verbose=0)).all()


def test_a_leak_of_samples_and_of_identities_is_measured():
    x, labels = plantings.held_out_part()
    facts = facts_of(ks.SiameseWrapper(encoder()), (x, labels))
    assert facts["duplicates"] == 1.0 and facts["shared_names"] == 10 and facts["shared_auc"] > 0.6


def test_a_probe_measures_steps_and_puts_everything_back():
    x, labels = plantings.train_part()
    sequence = ks.data.PairSequence(x, labels, batch_size=50)
    found = {}
    for rate in (1e-6, 1e-2):
        model = ks.SiameseWrapper(encoder())
        model.compile(keras.optimizers.Adam(rate), loss=ks.losses.ContrastiveLoss())
        model.train_on_batch(*sequence[0])
        kept = [np.array(ops.convert_to_numpy(one)) for one in [*model.variables, *model.optimizer.variables]]
        found[rate] = training.probe(model, sequence, steps=5)
        for variable, value in zip([*model.variables, *model.optimizer.variables], kept, strict=True):
            np.testing.assert_array_equal(ops.convert_to_numpy(variable), value)
    assert found[1e-6]["update_size_first"] < 1e-3 < 1e-2 < found[1e-2]["update_size_first"]
    assert found[1e-2]["probe_loss_fallen"] > found[1e-6]["probe_loss_fallen"]


@pytest.mark.parametrize(("steps", "tolerance"), [(10, 1e-3), (100, 0.3)])
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_a_probe_foretells_how_far_an_epoch_goes(optimizer, steps, tolerance):
    """Exactly where it takes all of the epoch's steps, and nearly where it continues those taken."""
    x, labels = plantings.train_part()
    sequence = ks.data.PairSequence(x, labels, batch_size=16, pairs_per_epoch=16 * steps, frozen=True)
    model = ks.SiameseWrapper(encoder())
    model.compile(optimizer, loss=ks.losses.ContrastiveLoss())
    model.fit(sequence, epochs=1, verbose=0)
    foretold = training.probe(model, sequence)["update_size_first"]
    before = training.sampled_kernels(model)
    model.fit(sequence, epochs=1, shuffle=False, verbose=0)
    epoch = training.update_size(before, training.sampled_kernels(model))
    assert foretold == pytest.approx(epoch, rel=tolerance)


def test_a_walk_is_continued_by_its_own_power():
    steps = np.arange(1, 21)
    for power in (0.5, 0.8, 1.0):
        walked = (0.01 * steps**power).tolist()
        assert training.continued(walked, 500) == pytest.approx(0.01 * 500**power)
    assert training.continued([0.3, 0.4], 2) == 0.4
    assert training.continued([0.01], 9) == pytest.approx(0.09), "one step tells no power: straight on"
    assert training.continued([0.0, 0.0], 9) == 0.0
    assert np.isnan(training.continued([float("nan")] * 3, 9))


def test_a_probe_needs_a_compiled_model_and_a_sequence():
    x, labels = plantings.held_out_part()
    with pytest.raises(ValueError, match="got no optimizer"):
        ks.diagnose(ks.SiameseWrapper(encoder()), validation=(x, labels), probe=True)
    model = ks.SiameseWrapper(encoder())
    model.compile("adam", loss=ks.losses.ContrastiveLoss())
    with pytest.raises(ValueError, match="got a tuple"):
        ks.diagnose(model, validation=(x, labels), train=(x, labels), probe=True)


@pytest.mark.parametrize(
    ("loss", "margin", "is_gap"),
    [
        (ks.losses.ContrastiveLoss(margin=0.7), 0.7, 0.0),
        (ks.losses.BatchTripletLoss(margin=0.3), 0.3, 1.0),
        (ks.losses.BatchContrastiveLoss(margin=0.9), 0.9, 0.0),
        (ks.losses.TupletMarginLoss(), None, None),  # degrees
        (ks.losses.CircleLoss(), None, None),  # of cosines
        (ks.losses.NTXentLoss(), None, None),
    ],
)
def test_only_a_margin_of_distances_is_one(loss, margin, is_gap):
    facts = facts_of(encoder(), loss=loss)
    assert (facts.get("margin"), facts.get("margin_is_gap")) == (margin, is_gap)


def test_triplets_and_dicts_are_no_hindrance():
    x, labels = plantings.train_part()
    triplets = ks.data.TripletSequence(x, labels, batch_size=20)
    facts = facts_of(ks.SiameseWrapper(encoder()), (x, labels), triplets)
    assert "drawn_auc" not in facts and facts["train_eer"] > 0
    named = keras.Input((24,), name="a")
    model = keras.Model({"a": named}, encoder()(named))
    trials = Trials.from_labels({"a": x[:60]}, labels[:60])
    siamese = ks.SiameseWrapper(model)
    evidence = Evidence(
        {},
        score(siamese, trials),
        score(siamese, trials),
        siamese=siamese,
        source=ks.data.PairSequence({"a": x}, labels),
    )
    assert "eer" in evidence.facts and "input_scale" not in evidence.facts and "drawn_auc" in evidence.facts
