"""`VerificationMonitor` and `DivergenceMonitor` under fit: what they write, beside whom, on which models and data."""

import copy
import csv
import json
import logging
import warnings

import keras
import numpy as np
import pytest
from keras import layers

from keras_siamese import verification
from keras_siamese.callbacks import DivergenceMonitor, SetEpoch, VerificationMonitor, monitors
from keras_siamese.data import PairSequence
from keras_siamese.layers import DistanceLayer, SiameseWrapper
from keras_siamese.scoring import Trials, score
from tests.support.monitored import FEATURES, TRAIN, VALID, by_hand, compiled, encoder_model, fit, pairs

KEYS = ["val_verification_accuracy", "val_eer", "val_auc", "val_tar@far=0.01", "val_threshold", "val_d_prime"]


class Recorder(keras.callbacks.Callback):
    """Copies of the logs of each epoch, and of the figures by hand."""

    def __init__(self, check=None):
        super().__init__()
        self.logs, self.check, self.checked = [], check, []

    def on_epoch_end(self, epoch, logs=None):
        self.logs.append(dict(logs))
        if self.check is not None:
            self.checked.append(self.check(self.model))


# --- what is written


@pytest.mark.each_backend
def test_figures_are_those_of_the_weights_at_the_end_of_each_epoch():
    monitor, recorder = VerificationMonitor(VALID, far=0.01), Recorder(by_hand)
    history = fit(compiled(), [monitor, recorder], epochs=3).history
    assert [key for key in history if key in KEYS] == KEYS == monitor.keys
    assert all(len(history[key]) == 3 for key in KEYS)
    for epoch, expected in enumerate(recorder.checked):
        for key, value in expected.items():
            assert history[key][epoch] == pytest.approx(value, abs=1e-4), key
            assert recorder.logs[epoch][key] == history[key][epoch]
    assert history["val_eer"][0] != history["val_eer"][2]  # not the first weights each time


@pytest.mark.each_backend
def test_a_bare_encoder_with_batch_normalisation_is_measured_as_it_trains():
    inputs = keras.Input((FEATURES,))
    outputs = layers.Dense(3)(layers.BatchNormalization(momentum=0.5)(layers.Dropout(0.2)(inputs)))
    encoder = keras.Model(inputs, outputs)
    compiled(encoder, loss="mse")
    recorder = Recorder(by_hand)
    monitor = VerificationMonitor(VALID, far=0.01, distance="euclidean")
    history = encoder.fit(
        TRAIN[0], np.eye(12)[TRAIN[1], :3], epochs=3, batch_size=20, callbacks=[monitor, recorder], verbose=0
    )
    for epoch, expected in enumerate(recorder.checked):
        for key, value in expected.items():
            assert history.history[key][epoch] == pytest.approx(value, abs=1e-4), key
    assert len(history.history["loss"]) == 3


def test_accuracy_and_threshold_are_cross_fitted():
    model = compiled()
    history = fit(model, VerificationMonitor(VALID)).history
    scored = score(model, Trials.of(VALID))
    accuracy, threshold = scored.accuracy
    assert history["val_verification_accuracy"][-1] == pytest.approx(accuracy)
    assert history["val_threshold"][-1] == pytest.approx(threshold, abs=1e-5)


def test_rates_without_support_are_left_out(caplog):
    with caplog.at_level(logging.INFO, "keras_siamese.callbacks"):
        monitor = VerificationMonitor(VALID, far=(0.1, 1e-4))
    assert [key for key in monitor.keys if "far" in key] == ["val_tar@far=0.1"]
    assert "TAR at FAR 0.0001 needs 30000 impostor pairs; it is left out, as there are 1680" in caplog.text


def test_the_latest_scores_are_those_before_an_epoch_that_is_not_measured():
    model, monitor = compiled(), VerificationMonitor(VALID, far=0.01, every=2)
    stops = keras.callbacks.LambdaCallback(on_epoch_end=lambda epoch, logs: setattr(model, "stop_training", epoch == 2))
    history = fit(model, [monitor, stops], epochs=9).history["val_auc"]
    assert len(history) == 3
    assert verification.auc(monitor.scored.same, monitor.scored.scores) == pytest.approx(history[1])
    fit(model, monitor, epochs=1, initial_epoch=1)  # no epoch
    assert monitor.scored is None


def test_every_other_epoch_repeats_the_last_figures_and_the_last_is_measured(monkeypatch):
    measured = []
    monkeypatch.setattr(monitors, "score", lambda *arguments: measured.append(1) or score(*arguments))
    model = compiled()
    history = fit(model, VerificationMonitor(VALID, far=0.01, every=2), epochs=5).history["val_auc"]
    # Epochs 1 (the first), 2, 4 and 5 (the last) are measured.
    assert len(measured) == 4 and len(history) == 5
    assert history[2] == history[1] and len({history[0], history[1], history[3], history[4]}) == 4
    assert history[4] == pytest.approx(by_hand(model)["val_auc"], abs=1e-4)


def test_two_fits_in_a_row_and_a_late_first_epoch():
    model, monitor = compiled(), VerificationMonitor(VALID, far=0.01, every=3)
    first = fit(model, monitor, epochs=2).history["val_auc"]
    second = fit(model, monitor, epochs=6, initial_epoch=4).history["val_auc"]
    assert len(first) == len(second) == 2
    assert second[-1] == pytest.approx(by_hand(model)["val_auc"], abs=1e-4)
    assert second[0] != first[-1]  # measured at its first epoch, whatever `every` says


# --- beside other callbacks


def test_readers_behind_the_monitor_see_its_figures(tmp_path):
    log = tmp_path / "log.csv"
    # No epoch can lower it by another half, so the second ends the fit.
    stop = keras.callbacks.EarlyStopping("val_eer", mode="min", min_delta=0.5, restore_best_weights=True)
    checkpoint = keras.callbacks.ModelCheckpoint(
        str(tmp_path / "best.keras"), "val_auc", mode="max", save_best_only=True
    )
    monitor = VerificationMonitor(VALID, far=0.01)
    model = compiled()
    history = fit(model, [monitor, keras.callbacks.CSVLogger(str(log)), checkpoint, stop], epochs=5).history
    assert len(history["val_eer"]) == 2  # EarlyStopping read it
    assert (tmp_path / "best.keras").exists()
    rows = list(csv.DictReader(log.read_text().splitlines()))
    assert [float(row["val_eer"]) for row in rows] == pytest.approx(history["val_eer"])
    best = keras.saving.load_model(tmp_path / "best.keras")
    assert by_hand(best)["val_auc"] == pytest.approx(max(history["val_auc"]), abs=1e-4)


@pytest.mark.parametrize("make", [VerificationMonitor, DivergenceMonitor])
def test_readers_in_front_of_the_monitor_are_told(make, tmp_path):
    class Quiet(keras.callbacks.CSVLogger):
        pass

    reduce = keras.callbacks.ReduceLROnPlateau("loss")
    with pytest.warns(UserWarning, match=f"Quiet stands before {make.__name__} in `callbacks`"):
        fit(compiled(), [reduce, Quiet(str(tmp_path / "log.csv")), make(VALID, far=0.01)], epochs=1)
    stop = keras.callbacks.EarlyStopping("val_eer", mode="min")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(compiled(), [stop, make(VALID, far=0.01)], epochs=2)
    told = [str(one.message) for one in said if "stands before" in str(one.message)]
    assert len(told) == 1 and "EarlyStopping stands before" in told[0]


def test_a_log_of_the_same_name_is_replaced_with_a_warning():
    model = compiled(
        SiameseWrapper(encoder_model(), head="logistic"), "binary_crossentropy", metrics=[keras.metrics.AUC(name="auc")]
    )
    held_out = PairSequence(*VALID, batch_size=30, frozen=True)
    with pytest.warns(UserWarning, match="`logs` has 'val_auc' already; VerificationMonitor replaces it"):
        history = fit(model, VerificationMonitor(VALID, far=0.01), validation_data=held_out).history
    scored = score(model, Trials.of(VALID))
    assert history["val_auc"][-1] == pytest.approx(verification.auc(scored.same, scored.scores), abs=1e-5)


def test_validation_data_may_be_evaluated_at_the_same_time():
    model = compiled()
    held_out = PairSequence(*VALID, batch_size=30, frozen=True)
    history = fit(model, VerificationMonitor(VALID, far=0.01), validation_data=held_out).history
    assert len(history["val_loss"]) == len(history["val_eer"]) == 2
    assert history["val_eer"][-1] == pytest.approx(by_hand(model)["val_eer"], abs=1e-4)


@pytest.mark.each_backend
def test_a_run_that_is_taken_up_again_goes_on(tmp_path):
    class Interrupt(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    backup = str(tmp_path / "backup")
    model, again = compiled(), compiled()
    for one in (model, again):  # BackupAndRestore wants it built
        one((TRAIN[0][:2], TRAIN[0][:2]))
    with pytest.raises(KeyboardInterrupt):
        fit(
            model, [DivergenceMonitor(VALID, far=0.01), keras.callbacks.BackupAndRestore(backup), Interrupt()], epochs=4
        )
    monitor = DivergenceMonitor(VALID, far=0.01)
    history = fit(again, [keras.callbacks.BackupAndRestore(backup), monitor], epochs=4).history
    assert len(history["val_eer"]) == 2
    assert np.isnan(monitor.history["eer"][:2]).all() and monitor.history["eer"][2:] == history["val_eer"]
    assert history["val_eer"][-1] == pytest.approx(by_hand(again)["val_eer"], abs=1e-4)


@pytest.mark.deep
def test_keras_tuner_takes_it_as_an_objective(tmp_path, monkeypatch):
    keras_tuner = pytest.importorskip("keras_tuner")
    # It imports tensorboard, which TensorFlow no longer brings.
    monkeypatch.setattr(keras_tuner.Tuner, "_configure_tensorboard_dir", lambda *arguments, **options: None)

    def build(hp):
        hp.Choice("dim", [2, 4])
        return compiled(SiameseWrapper(encoder_model(hp.get("dim"))))

    tuner = keras_tuner.GridSearch(
        build, keras_tuner.Objective("val_eer", "min"), executions_per_trial=2, directory=tmp_path, project_name="t"
    )
    monitor = DivergenceMonitor(VALID, far=0.01)
    tuner.search(pairs(), epochs=2, callbacks=[monitor], verbose=0)
    trials = tuner.oracle.get_best_trials(2)
    assert len(trials) == 2 and trials[0].score <= trials[1].score
    assert all(np.isfinite(trial.metrics.get_last_value("val_eer")) for trial in trials)
    assert monitor.history["eer"] == [] and monitor.diagnosis is None  # its copies ran


def test_a_copy_has_the_settings_and_not_the_run():
    monitor = DivergenceMonitor(VALID, lambda diagnosis: None, far=0.01, every=2, target_eer=0.1)
    fit(compiled(), monitor, epochs=3)
    copied = copy.deepcopy(monitor)
    assert (copied.every, copied.far, copied.target_eer) == (2, (0.01,), 0.1)
    assert copied.trials is monitor.trials and copied.on_divergence is monitor.on_divergence
    assert not any(copied.history.values()) and copied.diagnosis is None
    fit(compiled(), copied, epochs=1)
    assert len(monitor.history["eer"]) == 3 and len(copied.history["eer"]) == 1


# --- models and data of every kind


class SubclassedEncoder(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(4)

    def call(self, inputs):
        return self.dense(inputs)


class SubclassedTowers(keras.Model):
    def __init__(self):
        super().__init__()
        self.tower = encoder_model()

    def call(self, inputs):
        left, right = inputs
        return keras.ops.norm(self.tower(left) - self.tower(right) + 1e-3, axis=1, keepdims=True)


def functional_model():
    encoder = encoder_model()
    left, right = keras.Input((FEATURES,)), keras.Input((FEATURES,))
    return keras.Model([left, right], DistanceLayer("euclidean")([encoder(left), encoder(right)]))


@pytest.mark.each_backend
def test_a_functional_model_is_measured_through_its_encoder():
    model = compiled(functional_model())
    data = pairs()
    history = fit(model, [VerificationMonitor(VALID, far=0.01), SetEpoch(data)], data=data).history
    encoder = next(layer for layer in model.layers if isinstance(layer, keras.Sequential))
    assert history["val_auc"][-1] == pytest.approx(by_hand(encoder)["val_auc"], abs=1e-4)


def test_a_subclassed_encoder_is_measured():
    model = compiled(SubclassedEncoder(), "mse")
    monitor = VerificationMonitor(VALID, far=0.01, distance="euclidean")
    history = model.fit(TRAIN[0], np.eye(12)[TRAIN[1], :4], epochs=2, callbacks=[monitor], verbose=0).history
    assert history["val_auc"][-1] == pytest.approx(by_hand(model)["val_auc"], abs=1e-4)


def test_a_subclassed_model_is_measured_through_the_encoder_given():
    model = compiled(SubclassedTowers())
    monitor = VerificationMonitor(VALID, far=0.01, encoder=model.tower, distance="euclidean")
    data = pairs()
    history = fit(model, [monitor, SetEpoch(data)], data=data).history
    assert history["val_auc"][-1] == pytest.approx(by_hand(model.tower)["val_auc"], abs=1e-4)


class JudgesPairs(keras.Model):
    """A model that cannot be understood: its call compares as its training flag says."""

    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, inputs, training=None):
        left, right = inputs
        return self.dense(keras.ops.abs(left - right) if training else left * right)


@pytest.mark.each_backend
def test_a_score_of_the_user_is_measured_and_what_needs_embeddings_is_named(tmp_path):
    """The report of such a run is written too, without the pictures of embeddings."""
    seen, data = [], pairs()

    def score(left, right):
        seen.append(type(left))
        return -np.abs(left - right).sum(axis=1)

    monitor = DivergenceMonitor(VALID, far=0.01, score=score, train=TRAIN, report=tmp_path / "report.html")
    history = fit(compiled(JudgesPairs(), "mse"), [monitor, SetEpoch(data)], data=data).history
    left, right = np.triu_indices(len(VALID[1]), 1)
    same = VALID[1][left] == VALID[1][right]
    expected = verification.auc(same, score(VALID[0][left], VALID[0][right]))
    assert history["val_auc"] == pytest.approx([expected] * 2, abs=1e-6)
    assert set(seen) == {np.ndarray}
    said = str(monitor.diagnosis)
    assert "(needs embeddings: a model that embeds each item by itself, or `encoder=`)" in said
    assert {"collapse", "weak_features", "margin"} <= {one.cause for one in monitor.diagnosis.not_examined}
    assert "Not examined: " in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.each_backend
def test_a_cross_encoder_is_measured_by_its_output_and_has_no_embeddings(rng):
    sides = [keras.Input((FEATURES,)) for _ in range(2)]
    joined = layers.Dense(1, "sigmoid")(layers.Dense(8, "relu")(layers.Concatenate()(sides)))
    model = compiled(keras.Model(sides, joined), "binary_crossentropy")
    left, right = rng.integers(0, len(VALID[1]), (2, 300))
    x, y = [VALID[0][left], VALID[0][right]], (VALID[1][left] == VALID[1][right]).astype("float32")
    monitor = DivergenceMonitor((x, y), train=(x, y))
    logs = model.fit(x, y, epochs=2, callbacks=[monitor], verbose=0).history
    scores = monitor.attach().direction.up * 2 - 1
    assert logs["val_auc"][-1] == pytest.approx(
        verification.auc(y == monitor.attach().direction.similar_label, scores * model.predict(x, verbose=0)[:, 0]),
        abs=1e-5,
    )
    assert monitor.diagnosis.facts["has_embeddings"] == 0
    assert "collapse" in {one.cause for one in monitor.diagnosis.not_examined}
    assert np.isnan(monitor.history["spread"]).all()


@pytest.mark.parametrize("head", [None, "logistic"])
def test_pairs_and_frozen_sequences_are_measured_as_given(head):
    model = compiled(SiameseWrapper(encoder_model(), head=head), "binary_crossentropy" if head else None)
    sequence = PairSequence(*VALID, batch_size=20, pairs_per_epoch=400, frozen=True, similar_label=0, seed=5)
    batches = [sequence[index] for index in range(len(sequence))]
    left, right = (np.concatenate([towers[side] for towers, _ in batches]) for side in (0, 1))
    labels = np.concatenate([same for _, same in batches])
    given, frozen = (
        VerificationMonitor((left, right, labels), far=0.1, similar_label=0),
        VerificationMonitor(sequence, far=0.1),
    )
    fit(model, given, epochs=1)
    logs = [{}, {}]
    for monitor, log in zip((given, frozen), logs, strict=True):
        monitor.set_model(model)
        monitor.on_train_begin()
        monitor.on_epoch_end(0, log)
    assert {key: logs[1][key] for key in ("val_eer", "val_auc")} == pytest.approx(
        {key: logs[0][key] for key in ("val_eer", "val_auc")}, abs=1e-4
    )
    output = model.predict((left, right), verbose=0)[:, 0]
    scores = output if head else -output
    assert logs[0]["val_auc"] == pytest.approx(verification.auc(labels == 0, scores), abs=1e-4)


def test_samples_may_be_dicts():
    class Sum(layers.Layer):
        def __init__(self):
            super().__init__()
            self.dense = layers.Dense(4)

        def build(self, shapes):
            self.dense.build(shapes["a"])
            self.built = True

        def call(self, inputs):
            return self.dense(inputs["a"]) + inputs["b"]

        def compute_output_shape(self, shapes):
            return (shapes["a"][0], 4)

    def as_dict(x):
        return {"a": x, "b": x[:, :4]}

    model = compiled(SiameseWrapper(Sum()))
    data = PairSequence(as_dict(TRAIN[0]), TRAIN[1], batch_size=30)
    history = fit(model, VerificationMonitor((as_dict(VALID[0]), VALID[1]), far=0.01), data=data).history
    assert 0 < history["val_eer"][-1] < 1


# --- NaN


class Poison(keras.callbacks.Callback):
    """Makes the encoder's weights NaN when an epoch begins, and sound again later."""

    def __init__(self, at, until=None):
        super().__init__()
        self.at, self.until = at, until

    def on_epoch_begin(self, epoch, logs=None):
        weights = self.model.encoder.get_weights()
        if epoch == self.at:
            self.sound = weights
            self.model.encoder.set_weights([np.full_like(weight, np.nan) for weight in weights])
        if epoch == self.until:
            self.model.encoder.set_weights(self.sound)


def test_nan_weights_are_logged_warned_of_and_found(tmp_path):
    monitor = DivergenceMonitor(VALID, far=0.01, report=tmp_path / "report.html")
    with pytest.warns(UserWarning, match="NaN or infinite after epoch 3: verification is logged as NaN") as said:
        history = fit(compiled(), [monitor, Poison(at=2)], epochs=5).history
    assert sum("NaN or infinite" in str(one.message) for one in said) == 1
    for key in KEYS:
        assert np.isfinite(history[key][:2]).all() and np.isnan(history[key][2:]).all()
    assert monitor.flags == []
    diagnosis = monitor.diagnosis
    assert diagnosis.verdict.startswith("Embeddings are NaN or infinite since epoch 3; held-out EER")
    assert [(finding.cause, finding.severity) for finding in diagnosis.findings] == [("undetermined", "error")]
    assert "learning_rate" in diagnosis.findings[0].apply({})
    told = json.loads((tmp_path / "report.json").read_text())
    assert told["history"]["eer"][2:] == [None] * 3 and told["verdict"] == diagnosis.verdict
    assert (tmp_path / "report.html").exists()


def test_a_run_that_gets_over_nan_is_diagnosed():
    monitor = DivergenceMonitor(VALID, far=0.01)
    with pytest.warns(UserWarning, match="NaN or infinite"):
        fit(compiled(), [monitor, Poison(at=1, until=2)], epochs=4)
    assert np.isnan(monitor.history["eer"][1]) and np.isfinite(monitor.history["eer"][2:]).all()
    assert monitor.diagnosis.observed.not_finite_since is None
    assert "NaN" not in monitor.diagnosis.verdict


def test_nan_from_the_first_epoch_is_diagnosed_and_leaves_no_report(tmp_path):
    monitor = DivergenceMonitor(VALID, far=0.01, report=tmp_path / "report.html")
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        fit(compiled(), [monitor, Poison(at=0)], epochs=2)
    assert any("No epoch had finite embeddings" in str(one.message) for one in said)
    assert monitor.diagnosis.verdict == "Embeddings are NaN or infinite since epoch 1."
    assert [finding.cause for finding in monitor.diagnosis.findings] == ["undetermined"]
    assert not (tmp_path / "report.html").exists()


# --- refused


@pytest.mark.parametrize("make", [VerificationMonitor, DivergenceMonitor])
@pytest.mark.parametrize(
    ("arguments", "options", "error", "message"),
    [
        (((VALID[0], np.zeros(60, int)),), {}, ValueError, "they have 1 identities"),
        (((VALID[0][:0], VALID[1][:0]),), {}, ValueError, "at least one sample"),
        (((VALID[0], VALID[1][:9]),), {}, ValueError, "one entry for each of the 60 samples; got 9"),
        (((VALID[0] * np.nan, VALID[1]),), {}, ValueError, "must be finite"),
        ((pairs(),), {}, ValueError, "must be a frozen PairSequence"),
        ((VALID,), {"every": 0}, ValueError, "`every` must be at least 1"),
        ((VALID,), {"far": 1.5}, ValueError, "`far` must be in"),
        ((VALID,), {"similar_label": 2}, ValueError, "`similar_label` must be one of None, -1, 0, 1"),
        ((VALID,), {"batch_size": 0}, ValueError, "`batch_size` must be at least 1"),
        ((VALID,), {"evry": 2}, TypeError, "evry"),
        ((VALID,), {"score": "cosine"}, TypeError, "`score` must be a function"),
    ],
)
def test_bad_arguments_are_refused_on_construction(make, arguments, options, error, message):
    with pytest.raises(error, match=message):
        make(*arguments, **options)


@pytest.mark.parametrize("make", [VerificationMonitor, DivergenceMonitor])
def test_a_model_without_an_encoder_to_be_found_is_refused_before_it_trains(make):
    model = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(1)])
    compiled(model, "mse")
    before = model.get_weights()
    with pytest.raises(ValueError, match="Pass `encoder=`"):
        model.fit(TRAIN[0], np.zeros(60), callbacks=[make(VALID, far=0.01)], verbose=0)
    np.testing.assert_array_equal(before[0], model.get_weights()[0])


def test_an_encoder_of_another_model_is_refused_before_it_trains():
    with pytest.raises(ValueError, match="`encoder` must be None for"):
        fit(compiled(), VerificationMonitor(VALID, far=0.01, encoder=encoder_model()))
    data = pairs()
    with pytest.raises(ValueError, match="must be a part of"):
        fit(
            compiled(functional_model()),
            [VerificationMonitor(VALID, encoder=encoder_model()), SetEpoch(data)],
            data=data,
        )


@pytest.mark.parametrize(("identities", "each", "kept"), [(60, 12, (240, 480)), (10, 50, (200, 400)), (9, 6, (54, 54))])
def test_a_verification_monitor_measures_half_of_what_a_diagnosis_measures(identities, each, kept):
    labels = np.repeat(np.arange(identities), each)
    given = np.zeros((len(labels), FEATURES)), labels
    found = [len(monitor(given).trials.items) for monitor in (VerificationMonitor, DivergenceMonitor)]
    assert tuple(found) == kept
