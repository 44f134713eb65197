"""What a `DivergenceMonitor` does on a flag, what it knows of the training data, and which settings it refuses."""

import json
import sys

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.callbacks import DivergenceError, DivergenceMonitor
from keras_siamese.data import PairSequence
from keras_siamese.layers import SiameseWrapper
from tests.support.monitored import (
    EAGERLY,
    FEATURES,
    TRAIN,
    VALID,
    by_hand,
    clusters,
    compiled,
    encoder_model,
    fit,
    pairs,
)


class Worsen(keras.callbacks.Callback):
    """Makes the losses that are reported fall while the encoder goes from four features to their sum."""

    def on_epoch_end(self, epoch, logs=None):
        logs["loss"] = 0.8**epoch
        share = np.clip((epoch - 1) / 4, 0, 1)
        kernel = (1 - share) * np.eye(FEATURES, 4) + share * np.ones((FEATURES, 4))
        self.model.encoder.set_weights([kernel, np.zeros(4)])


def diverge(monitor, epochs=12):
    model = compiled()
    model.compile(keras.optimizers.SGD(0.0), loss=ks.losses.ContrastiveLoss(), run_eagerly=EAGERLY)
    data = pairs(pairs_per_epoch=30)
    return fit(model, [Worsen(), monitor], epochs=epochs, data=data)


def test_a_divergence_warns_once_with_its_diagnosis():
    monitor = DivergenceMonitor(VALID, far=0.01)
    with pytest.warns(UserWarning, match="The loss falls and verification does not follow since epoch") as said:
        history = diverge(monitor)
    assert len([one for one in said if "does not follow" in str(one.message)]) == 1
    assert len(history.history["loss"]) == 12 and len(monitor.flags) > 1
    assert monitor.flags == sorted(set(monitor.flags)) and monitor.flags[0] >= 5
    assert monitor.diagnosis.diverging and [flag.epoch for flag in monitor.diagnosis.flags] == monitor.flags
    assert str(monitor.diagnosis).startswith(
        f"The loss falls and verification does not follow since epoch {monitor.flags[0] + 1}"
    )


@pytest.mark.each_backend
def test_a_divergence_stops_the_run():
    monitor = DivergenceMonitor(VALID, "stop", far=0.01)
    with pytest.warns(UserWarning, match="does not follow"):
        history = diverge(monitor, epochs=30).history
    assert len(history["loss"]) == monitor.flags[0] + 1 < 30


def test_why_training_data_are_not_examined_is_logged(caplog):
    monitor, alone = DivergenceMonitor(VALID), (TRAIN[0][:4], np.zeros(4, int))
    monitor.set_model(compiled())
    monitor.know(alone)  # one identity, of which no pairs can be made
    with caplog.at_level("INFO", logger="keras_siamese"):
        assert monitor.training() == (None, None, None) and "What `fit` was given is not examined: " in caplog.text
        monitor.model.training_data = pairs()
        assert monitor.training()[2] is None and "The training samples are not compared with each" in caplog.text
    monitor.train, monitor._is_told = alone, False  # as the user's own `train=`
    del monitor.model.training_data
    with pytest.raises(ValueError, match="identit"):
        monitor.training()


def test_a_divergence_raises(tmp_path):
    monitor = DivergenceMonitor(VALID, "raise", report=tmp_path / "report.html", far=0.01)
    with pytest.raises(DivergenceError, match="does not follow since epoch") as raised:
        diverge(monitor)
    assert raised.value.diagnosis is monitor.diagnosis and monitor.diagnosis.diverging
    assert json.loads((tmp_path / "report.json").read_text())["diverging"] is True


def test_a_divergence_calls_a_function_once():
    called = []
    monitor = DivergenceMonitor(VALID, called.append, far=0.01)
    diverge(monitor)
    assert len(called) == 1 and called[0].observed.epoch == monitor.flags[0]
    assert monitor.diagnosis is not called[0] and monitor.diagnosis.observed.epoch == 11


def test_flags_follow_every_and_begin_anew_with_a_fit():
    monitor = DivergenceMonitor(VALID, lambda diagnosis: None, far=0.01, every=2)
    diverge(monitor, epochs=24)
    assert monitor.flags and all(epoch % 2 == 1 for epoch in monitor.flags)
    assert np.isfinite(monitor.history["loss"]).all()  # the loss is known of every epoch
    assert np.isnan(monitor.history["eer"][2::2]).all()
    fit(compiled(), monitor, epochs=2)
    assert monitor.flags == [] and len(monitor.history["loss"]) == 2
    fit(compiled(), monitor, epochs=6, initial_epoch=4)
    assert len(monitor.history["loss"]) == 6 and np.isnan(monitor.history["loss"][2:4]).all()


def test_too_few_epochs_say_so():
    monitor = DivergenceMonitor(VALID, far=0.01)
    fit(compiled(), monitor)
    assert monitor.diagnosis.verdict.startswith("Whether verification follows the loss is not known (only 2 measured")


def inverted(monitor, epochs=6, **options):
    """A fit whose loss takes the wrong label for the same identity."""
    model = compiled(loss=ks.losses.ContrastiveLoss(similar_label=0))
    return fit(model, [monitor], epochs=epochs, data=pairs(pairs_per_epoch=150), **options)


def test_an_error_that_is_found_flags_a_run_from_five_epochs_on():
    called = []
    monitor = DivergenceMonitor(VALID, called.append, far=0.01)
    inverted(monitor)
    assert [one.observed.epoch for one in called] == [4] and monitor.flags[0] == 4
    assert called[0].leading[0].cause == "inverted_labels" and called[0].is_alarming


def test_a_look_that_fails_does_not_end_the_run(monkeypatch):
    monitor, diagnose = DivergenceMonitor(VALID, far=0.01), DivergenceMonitor.diagnose
    epochs = []

    def fails_while_it_trains(self, valid=None):
        epochs.append(len(self.history["loss"]))
        return 1 / 0 if len(epochs) == 1 else diagnose(self, valid)

    monkeypatch.setattr(DivergenceMonitor, "diagnose", fails_while_it_trains)
    with pytest.warns(UserWarning, match="The diagnosis failed .*ZeroDivisionError: division by zero; training goes"):
        history = fit(compiled(), monitor, epochs=6)
    assert len(history.history["loss"]) == 6 and epochs == [5, 6] and monitor.diagnosis is not None


@pytest.mark.each_backend
def test_a_run_is_measured_and_flagged_within_an_epoch(tmp_path):
    """An epoch of ten steps, measured after every second one."""
    called, losses = [], []
    monitor = DivergenceMonitor(VALID, called.append, tmp_path / "report.html", far=0.01, every_steps=2)
    totals = keras.callbacks.LambdaCallback(on_train_batch_end=lambda batch, logs: losses.append(logs["loss"]))
    model = compiled(loss=ks.losses.ContrastiveLoss(similar_label=0))
    fit(model, [monitor, totals], epochs=1, data=pairs(pairs_per_epoch=300))
    parts = monitor.parts
    assert parts["step"] == [2, 4, 6, 8, 10] and len(losses) == 10
    totals = [0, *(loss * (k + 1) for k, loss in enumerate(losses))]
    assert parts["loss"] == pytest.approx(np.diff(totals[::2]) / 2, abs=1e-5)
    assert parts["auc"][-1] == pytest.approx(by_hand(model)["val_auc"], abs=1e-4)
    assert len(called) == 1 and called[0].observed.epoch is None  # found after the fifth measurement
    assert "training step" not in str(called[0]) and called[0].leading[0].cause == "inverted_labels"
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["parts"]["step"] == [2, 4, 6, 8, 10] and len(report["history"]["loss"]) == 1


def test_the_steps_of_all_epochs_are_counted():
    monitor = DivergenceMonitor(VALID, lambda diagnosis: None, far=0.01, every_steps=3)
    fit(compiled(), monitor, epochs=4, data=pairs(pairs_per_epoch=60))  # two batches an epoch
    assert monitor.parts["step"] == [3, 6]
    assert np.isfinite(monitor.parts["loss"]).all()


# --- what a divergence monitor knows of the training data


def test_training_data_are_found_in_a_wrappers_fit_of_that_time():
    monitor, model = DivergenceMonitor(VALID, far=0.01), compiled()
    fit(model, monitor, epochs=1, data=pairs(positive_fraction=0.2))
    first = monitor.diagnosis.observed
    assert first.positive_fraction == 0.2 and first.train is not None and first.data_similar_label == 1
    other = PairSequence(*clusters(4, 5, seed=9), batch_size=20, positive_fraction=0.7)
    fit(model, monitor, epochs=1, data=other)
    second = monitor.diagnosis.observed
    assert second.positive_fraction == 0.7 and len(second.train.embeddings) == 20


def test_training_data_given_tell_the_identities_and_the_fit_the_pairs():
    monitor = DivergenceMonitor(VALID, far=0.01, train=clusters(6, 5, seed=8))
    fit(compiled(), monitor, epochs=1, data=pairs(positive_fraction=0.3))
    observed = monitor.diagnosis.observed
    assert len(observed.train.embeddings) == 30 and observed.positive_fraction == 0.3


def test_training_data_that_make_no_trials_are_not_examined():
    monitor = DivergenceMonitor(VALID, far=0.01)
    lone = PairSequence(TRAIN[0], np.zeros(60, int), positive_fraction=1.0, batch_size=30)
    fit(compiled(), monitor, epochs=1, data=lone)
    assert monitor.diagnosis.observed.train is None
    assert "memorising" in [answer.cause for answer in monitor.diagnosis.not_examined]


@pytest.mark.parametrize("metrics", [["accuracy"], []])
def test_an_accuracy_on_probabilities_is_taken_to_use_a_half(metrics):
    model = compiled(SiameseWrapper(encoder_model(), head="logistic"), "binary_crossentropy", metrics=metrics)
    monitor = DivergenceMonitor(VALID, far=0.01)
    fit(model, monitor, epochs=1)
    assert monitor.diagnosis.observed.threshold == (0.5 if metrics else None)


def test_the_diagnosis_is_of_the_weights_that_training_leaves():
    class Restore(keras.callbacks.Callback):  # as EarlyStopping does in front of the monitor
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == 1:
                self.kept = self.model.get_weights()

        def on_train_end(self, logs=None):
            self.model.set_weights(self.kept)

    monitor, model = DivergenceMonitor(VALID, far=0.01), compiled()
    fit(model, [Restore(), monitor], epochs=3)
    observed = monitor.diagnosis.observed
    assert observed.auc.estimate == pytest.approx(monitor.history["auc"][0], abs=1e-4)
    assert observed.auc.estimate != pytest.approx(monitor.history["auc"][-1], abs=1e-4)
    assert observed.train_intervals["auc"].estimate == pytest.approx(by_hand(model, TRAIN)["val_auc"], abs=1e-4)


# --- refused


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_divergence": "shout"}, "`on_divergence` must be one of 'warn', 'stop', 'raise', or a function"),
        ({"target_eer": 0}, "`target_eer` must be in"),
        ({"threshold": np.nan}, "`threshold` must be in"),
        ({"train": TRAIN[0]}, "`train` must be .x, labels. or a sequence"),
        ({"train": (TRAIN[0], TRAIN[1][:5])}, "`train labels` must have one entry"),
        ({"train": (TRAIN[0], np.zeros(60, int))}, "they have 1 identities"),
        ({"train": ([np.ones((5, 2)), np.ones((5, 2))], np.ones(4))}, "`train` must have .* same number of samples"),
        ({"every_steps": 0}, "`every_steps` must be at least 1; got 0"),
    ],
)
def test_bad_settings_of_a_divergence_monitor_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        DivergenceMonitor(VALID, **options)


def test_a_misspelt_option_is_named_with_the_right_one():
    for wrong, right in (("reprot", "report"), ("similar_lable", "similar_label")):
        with pytest.raises(TypeError, match=rf"DivergenceMonitor\(\) got .* '{wrong}'. Did you mean '{right}'\?"):
            DivergenceMonitor(VALID, **{wrong: 1})
    with pytest.raises(TypeError, match=r"got an unexpected keyword argument 'zzz'$"):
        DivergenceMonitor(VALID, zzz=1)


def test_a_report_that_cannot_be_written_is_refused_on_construction(tmp_path):
    (tmp_path / "file").write_text("")
    (tmp_path / "taken.json").mkdir()
    for path, message in (
        (tmp_path, "is a folder"),
        (tmp_path / "file" / "report.html", "cannot"),
        (tmp_path / "taken.html", "is a folder"),
        (tmp_path / "report.json", "the JSON goes beside it"),
    ):
        with pytest.raises(ValueError, match=message):
            DivergenceMonitor(VALID, report=path)


@pytest.mark.parametrize("missing", ["matplotlib", "jinja2"])
def test_a_report_without_its_extra_is_refused_on_construction(missing, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(ImportError, match=rf'{missing} is needed here.*pip install "keras-siamese\[report\]"'):
        DivergenceMonitor(VALID, report=tmp_path / "report.html")
    DivergenceMonitor(VALID)
