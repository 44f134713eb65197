"""Tests of what options mean for a user's program: batches, inputs, labels and rates are changed as they say."""

from dataclasses import replace

import keras
import numpy as np
import pytest

from keras_siamese.diagnosis.causes import Finding
from keras_siamese.diagnosis.experiments.changes import CHANGES, changed, options_of
from keras_siamese.diagnosis.experiments.comparison import OPTIONS
from keras_siamese.diagnosis.experiments.program import begun
from keras_siamese.diagnosis.facts.table import Facts


def labels_of(program):
    return np.concatenate([program.batches.at(step)[1] for step in range(program.batches.steps)])


def test_every_option_that_a_cause_repairs_by_has_one_meaning():
    assert not set(CHANGES) & set(OPTIONS)


def test_options_are_what_a_repair_changes():
    finding = Finding("x", "error", None, "", {}, "", lambda recipe: {**recipe, "margin": 1.0})
    assert options_of(finding, Facts({"learning_rate": 0.1})) == {"margin": 1.0}
    slower = replace(finding, apply=lambda recipe: {**recipe, "learning_rate": recipe["learning_rate"] / 10})
    assert options_of(slower, Facts({"learning_rate": 0.1})) == {"learning_rate": pytest.approx(0.01)}
    assert options_of(replace(finding, apply=None), Facts()) == {}


def test_an_option_that_the_program_does_not_have_is_not_made(pairs):
    program, observed = pairs
    assert changed(program, {"blur": 0.0, "leak": None}, observed) == (program, ())


def test_the_learning_rate_becomes_a_factor(pairs):
    program, observed = pairs
    found, made = changed(program, {"learning_rate": 3e-2}, observed)
    assert made == ("learning_rate",) and found.rate == pytest.approx(10.0)


def test_a_sequence_shows_the_share_of_genuine_pairs(pairs):
    program, observed = pairs
    found, _ = changed(program, {"positive_fraction": 0.5}, observed)
    assert np.mean(labels_of(program)) == pytest.approx(0.1, abs=0.02)
    assert np.mean(labels_of(found)) == pytest.approx(0.5, abs=0.02)
    assert found.batches.steps == program.batches.steps


def test_arrays_of_pairs_are_resampled(plain):
    program, observed = plain
    few = replace(program, batches=program.batches.resampled(np.flatnonzero(program.batches.labels == 1)[:40]))
    found, made = changed(program, {"positive_fraction": 0.25}, observed)
    shown = labels_of(found)
    assert made == ("positive_fraction",) and len(shown) == len(labels_of(program))
    assert min(np.mean(shown), 1 - np.mean(shown)) == pytest.approx(0.25, abs=0.03)
    assert len(labels_of(few)) == 40


def test_labels_are_turned_by_the_loss(pairs, plain):
    for program, observed in (pairs, plain):
        found, made = changed(program, {"similar_label": 0}, observed)
        batch = program.batches.at(0)
        assert made == ("similar_label",) and found.batches is program.batches
        y_pred = program.model(batch[0])
        losses = (
            keras.ops.convert_to_numpy(one.model.compute_loss(y=y, y_pred=y_pred))
            for one, y in ((found, batch[1]), (program, 1 - batch[1]))
        )
        assert np.allclose(*losses, rtol=1e-5)


def test_labels_are_turned_in_the_batches_of_a_model_that_cannot_be_compiled_anew(plain):
    program, observed = plain
    found, _ = changed(program, {"similar_label": 0}, replace(observed, loss=None))
    assert np.array_equal(labels_of(found), 1 - labels_of(program)) and found.model is program.model


def test_suspected_rows_are_left_out(plain):
    program, observed = plain
    left = program.batches.x[0]
    observed.facts.rows["suspected_labels"] = [0, 1, 2]
    found, made = changed(program, {"label_noise": 0.0}, observed)
    shown = np.concatenate([found.batches.at(step)[0][0] for step in range(found.batches.steps)])
    assert made == ("label_noise",)
    assert not any((shown == left[row]).all(axis=1).any() for row in (0, 1, 2) if (left == left[row]).sum() == 12)
    assert changed(program, {"epsilon": 1e-7}, observed)[1] == ()  # which leaves out only equal pairs
    again, _ = changed(found, {"label_noise": 0.0}, observed)  # rows count among those that are left
    assert again.batches.shown.tolist() == program.batches.shown[6:].tolist()
    observed.facts.rows["suspected_labels"] = []
    assert changed(program, {"label_noise": 0.0}, observed)[1] == ()


def test_one_side_is_brought_to_the_scale_of_the_other(plain):
    program, observed = plain
    far = replace(
        program, batches=replace(program.batches, x=[program.batches.x[0], (9 * program.batches.x[1]).astype("f4")])
    )
    trials = far.trials
    count = len(trials)
    split = replace(
        trials,
        items=np.concatenate([trials.items[trials.left], 9 * trials.items[trials.right]]),
        left=np.arange(count),
        right=count + np.arange(count),
        rows=None,
    )
    found, made = changed(replace(far, trials=split), {"tower_scale": 1.0}, observed)
    left, right = found.batches.at(0)[0]
    assert made == ("tower_scale",) and 0.8 < left.std() / right.std() < 1.25
    assert np.allclose(found.trials.items[count:], trials.items[trials.right], rtol=0.3, atol=0.3)
    assert np.array_equal(found.trials.items[:count], trials.items[trials.left])
    given, scaled = far.batches.at(0)[0], found.batches.at(0)[0]
    outputs = found.finish(found)(given), program.model(scaled)
    assert np.allclose(*map(keras.ops.convert_to_numpy, outputs), atol=1e-4)


def test_held_out_inputs_get_the_mean_and_spread_of_the_training_ones(pairs):
    program, observed = pairs
    shifted = replace(program, trials=replace(program.trials, items=40 * program.trials.items + 128))
    found, made = changed(shifted, {"preprocessing": "same"}, observed)
    inputs = np.concatenate(program.batches.at(0)[0])
    assert made == ("preprocessing",) and found.start is None
    items = found.trials.items[:]
    assert items.std() == pytest.approx(inputs.std(), rel=0.05) and items.mean() == pytest.approx(
        inputs.mean(), abs=0.05
    )


def test_the_metric_is_turned_without_training(pairs):
    program, observed = pairs
    found, _ = changed(program, {"validation_similar_label": 1}, observed)
    assert found.sign == -1 and found.start is None


def test_the_momentum_holds_while_the_program_runs(pairs):
    program, observed = pairs
    found, made = changed(program, {"momentum": 0.5}, observed)
    norm = next(one for one in program.model.encoder.layers if isinstance(one, keras.layers.BatchNormalization))
    assert made == ("momentum",) and norm.momentum == 0.99
    with found.settings[-1]():
        assert norm.momentum == 0.5
    assert norm.momentum == 0.99


def test_a_repair_of_mining_changes_nothing_where_nothing_is_mined(pairs):
    program, observed = pairs
    mining = {"positives": "all", "negatives": "all", "easy_pairs": False, "online": False}
    assert changed(program, mining, observed) == (program, ())


def test_batches_of_identities_are_drawn_anew_as_the_source_draws_them(batchwise):
    program, observed = batchwise
    assert changed(program, {"pairs": "drawn"}, observed) == (program, ())  # they are the same
    observed.facts.rows["suspected_labels"] = [0, 1, 2, 3, 4, 5]  # all samples of an identity
    found, made = changed(program, {"label_noise": 0.0}, observed)
    observed.facts.rows["suspected_labels"] = []
    source = found.batches.source
    assert made == ("label_noise",) and source.classes_per_batch == 10 and len(source.identities) == 29


def test_samples_without_a_sequence_get_batches_of_several_identities(batchwise):
    program, observed = batchwise
    x, labels = observed.source.x, observed.source.labels
    found, made = changed(program, {"weighting": "balanced"}, replace(observed, source=(x, labels)))
    assert made == ("weighting",) and len(np.unique(found.batches.at(0)[1])) == 16


def test_layers_that_were_made_start_anew_in_each_run(plain):
    program, observed = plain
    found, _ = changed(program, {"head": "logistic"}, observed)
    head = [one for one in found.model.variables if id(one) not in program.start]
    assert head and all(id(one) in found.start for one in found.model.variables)
    before = [keras.ops.convert_to_numpy(one) for one in head]
    for one in head:
        one.assign(one + 5.0)
    with begun(found):
        assert all(
            np.array_equal(keras.ops.convert_to_numpy(one), value) for one, value in zip(head, before, strict=True)
        )
