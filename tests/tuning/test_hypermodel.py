"""The hypermodel under KerasTuner's tuners: its folds and figures against a loop written by hand, checkpoints,
failures, divergence, resuming, bad input."""

import json
import logging
import os
import random
import signal
import subprocess
import sys
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese import scoring
from keras_siamese.callbacks import DivergenceMonitor, VerificationMonitor
from keras_siamese.data import IdentityKFold, PairSequence
from keras_siamese.tuning import Range, SearchResults, SearchSpace, SiameseHyperModel, folds, objective
from tests.support.searches import Shrink, digits

pytestmark = [
    pytest.mark.any_backend,
    pytest.mark.filterwarnings("ignore:currentThread:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:getName:DeprecationWarning"),
    # Keras's, where KerasTuner loads a checkpoint into a model whose optimizer has not stepped.
    pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer:UserWarning"),
]


def encoder(embedding_dim=4):
    layers = [keras.Input((64,)), keras.layers.Dense(embedding_dim), keras.layers.UnitNormalization()]
    return keras.Sequential(layers)


def tuner_of(hypermodel, folder, kind="RandomSearch", aim="val_eer", **options):
    options = {"max_trials": 3, "seed": 1, **options} if kind != "Hyperband" else {"seed": 1, **options}
    tuner = getattr(keras_tuner, kind)(hypermodel, objective=objective(aim), directory=folder, **options)
    tuner.oracle.verbose = 0
    return tuner


def trials_in(tuner):
    return [tuner.oracle.trials[name] for name in tuner.oracle.start_order]


def small():
    """Samples of 6 identities, for searches that train nothing."""
    return np.arange(384.0, dtype="float32").reshape(6, 64).repeat(3, axis=0), np.repeat(np.arange(6), 3)


@pytest.fixture
def scripted(monkeypatch):
    """`script(function)`: each `fit` trains nothing; its curves are what `function(model, sequence)` returns or raises.

    Held-out keys are given to the callbacks behind the monitor, KerasTuner's checkpoint among them, as real ones are.
    """
    fits = []

    def script(function):
        def fit(model, sequence, callbacks=(), epochs=1, **options):
            curves = function(model, sequence)
            fits.append({"model": model, "sequence": sequence, "callbacks": callbacks, "epochs": epochs, **options})
            curves = {"loss": [0.0] * len(next(iter(curves.values()))), **curves}
            if not model.built:
                model.build([(None, 64), (None, 64)])
            for callback in callbacks:
                if type(callback).__name__ == "SaveBestEpoch":
                    callback.set_model(model)
                    for epoch in range(len(curves["loss"])):
                        callback.on_epoch_end(epoch, {key: curve[epoch] for key, curve in curves.items()})
            history = keras.callbacks.History()
            history.history = curves
            return history

        monkeypatch.setattr(ks.SiameseWrapper, "fit", fit)
        return fits

    return script


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A random search with folds over pairs and batches, its tuner, and its folder."""
    folder = tmp_path_factory.mktemp("search")
    space = SearchSpace(
        loss=["ContrastiveLoss", "NTXentLoss"],
        relative_margin=Range(0.2, 0.6),
        embedding_dim=[2, 8],
        learning_rate=Range(1e-3, 1e-1, log=True),
        batch_size=12,
        classes_per_batch=3,
    )
    tuner = tuner_of(SiameseHyperModel(encoder, space, seed=3), folder, max_trials=4)
    tuner.search(*digits(), cv=3, epochs=2)
    return tuner, folder


def test_it_is_a_hypermodel_of_kerastuner():
    assert issubclass(SiameseHyperModel, keras_tuner.HyperModel)
    hypermodel = SiameseHyperModel(encoder, name="faces", tunable=False)
    assert (hypermodel.name, hypermodel.tunable) == ("faces", False)
    hp = keras_tuner.HyperParameters()
    assert hypermodel.build(hp).compiled
    assert hp.space == [], "an untunable hypermodel adds nothing to the space"
    assert ks.tuning.SiameseHyperModel is SiameseHyperModel
    assert "SiameseHyperModel" in dir(ks.tuning)


def test_folds_are_those_of_a_loop_written_by_hand(searched):
    tuner, _ = searched
    x, labels = digits()
    trial = next(one for one in trials_in(tuner) if one.hyperparameters.values["loss"] == "ContrastiveLoss")
    values = trial.hyperparameters.values
    by_hand = []
    for number, (train, held_out) in enumerate(IdentityKFold(3, seed=3).split(x, labels)):
        random.seed(3 + number)
        siamese = ks.SiameseWrapper(encoder(values["embedding_dim"]), distance="euclidean")
        loss = ks.losses.ContrastiveLoss(margin=2 * values["relative_margin"])
        siamese.compile(keras.optimizers.Adam(values["learning_rate"]), loss=loss)
        pairs = PairSequence(x[train], labels[train], batch_size=12, seed=3)
        monitor = VerificationMonitor((x[held_out], labels[held_out]))
        curves = siamese.fit(pairs, epochs=2, shuffle=False, verbose=0, callbacks=[monitor]).history
        by_hand.append(min(curves["val_eer"]))
    assert len(set(by_hand)) == 3, "the oracle tells the folds apart"
    told = {name: trial.metrics.get_best_value(name) for name in trial.metrics.metrics}
    np.testing.assert_allclose([told[f"split{fold}_val_eer"] for fold in range(3)], by_hand, atol=1e-6)
    assert told["val_eer"] == trial.score == pytest.approx(np.mean(by_hand))
    assert told["std_val_eer"] == pytest.approx(np.std(by_hand))
    assert 0.5 < told["val_auc"] <= 1


def test_the_best_models_are_the_best_epoch_of_the_best_fold(searched):
    tuner, _ = searched
    x, labels = digits()
    held_out = [rows for _, rows in IdentityKFold(3, seed=3).split(x, labels)]
    for trial, model in zip(tuner.oracle.get_best_trials(2), tuner.get_best_models(2), strict=True):
        splits = [trial.metrics.get_best_value(f"split{fold}_val_eer") for fold in range(3)]
        rows = held_out[int(np.argmin(splits))]
        scored = scoring.score(scoring.as_siamese(model, items=x), scoring.Trials.of((x[rows], labels[rows])))
        assert ks.verification.eer(scored.same, scored.scores) == pytest.approx(min(splits), abs=1e-6)


def test_no_identity_stands_on_both_sides(scripted, tmp_path):
    fits = scripted(lambda model, sequence: {"val_eer": [0.5]})
    x, labels = digits()
    tuner_of(SiameseHyperModel(encoder), tmp_path, max_trials=1).search(x, labels, cv=3)
    label_of = {row.tobytes(): int(label) for row, label in zip(x, labels, strict=True)}
    held = []
    for fit in fits:
        monitor = next(one for one in fit["callbacks"] if isinstance(one, VerificationMonitor))
        trained_on = {label_of[row.tobytes()] for row in fit["sequence"].x}
        monitored = {label_of[row.tobytes()] for row in monitor.trials.items}
        assert not trained_on & monitored
        assert trained_on | monitored == set(range(10))
        held += monitored
    assert sorted(held) == list(range(10))
    assert len({id(fit["model"]) for fit in fits}) == 3, "each fold has a model of its own"


def test_the_monitor_stands_before_what_reads_it_and_callbacks_are_copied(scripted, tmp_path):
    fits = scripted(lambda model, sequence: {"val_eer": [0.5]})
    stopper = keras.callbacks.EarlyStopping("val_eer", mode="min")
    tuner = tuner_of(SiameseHyperModel(encoder, SearchSpace(mining="hard")), tmp_path, max_trials=1)
    tuner.search(*small(), cv=2, callbacks=[stopper])
    for fit in fits:
        names = [type(one).__name__ for one in fit["callbacks"]]
        assert names == [
            *["SetEpoch", "HardPairRefresh", "VerificationMonitor"],
            *["EarlyStopping", "TunerCallback", "SaveBestEpoch"],
        ]
    stoppers = {id(fit["callbacks"][3]) for fit in fits} | {id(stopper)}
    assert len(stoppers) == 3
    assert len({id(fit["callbacks"][-1]) for fit in fits}) == 1, "one checkpoint a trial, of the best fold"


def test_with_hyperband_on_held_out_data(tmp_path):
    x, labels = digits()
    is_train = labels < 7
    space = SearchSpace(embedding_dim=[2, 8], learning_rate=Range(1e-3, 1e-1, log=True), batch_size=12)
    tuner = tuner_of(SiameseHyperModel(encoder, space), tmp_path, kind="Hyperband", max_epochs=2, factor=2)
    tuner.search(x[is_train], labels[is_train], validation_data=(x[~is_train], labels[~is_train]))
    epochs = [trial.hyperparameters.values["tuner/epochs"] for trial in trials_in(tuner)]
    assert set(epochs) == {1, 2}
    model = tuner.get_best_models()[0]
    scored = scoring.score(model, scoring.Trials.of((x[~is_train], labels[~is_train])))
    best = tuner.oracle.get_best_trials()[0]
    assert ks.verification.eer(scored.same, scored.scores) == pytest.approx(best.score, abs=1e-6)
    results = SearchResults.of(tuner)
    assert results.cv == 1
    assert results.best.name == best.trial_id
    resumed = next(one for one in trials_in(tuner) if one.hyperparameters.values["tuner/initial_epoch"] == 1)
    record = json.loads((Path(tuner.get_trial_dir(resumed.trial_id)) / "folds.json").read_text())[0]
    assert record["epoch"] == 2, "counted from the beginning of the run"


def test_hyperband_with_folds_is_refused_with_the_reason(tmp_path, scripted):
    fits = scripted(lambda model, sequence: {"val_eer": [0.5]})
    tuner = tuner_of(SiameseHyperModel(encoder), tmp_path, kind="Hyperband", max_epochs=2)
    with pytest.raises(keras_tuner.errors.FatalValueError, match="`cv` does not go with Hyperband.*have seen what"):
        tuner.search(*small(), cv=2)
    assert fits == []


def test_executions_of_a_trial_differ_and_a_build_repeats(tmp_path, scripted):
    fits = scripted(lambda model, sequence: {"val_eer": [0.5]})
    tuner = tuner_of(SiameseHyperModel(encoder), tmp_path, max_trials=1, executions_per_trial=3)
    x, labels = small()
    tuner.search(x, labels, validation_data=(x, labels))
    sums = [float(np.abs(fit["model"].get_weights()[0]).sum()) for fit in fits]
    assert len(set(sums)) == 3
    random.seed(0)
    state = random.getstate()
    one, other = (SiameseHyperModel(encoder).build(keras_tuner.HyperParameters()) for _ in range(2))
    assert random.getstate() == state
    np.testing.assert_array_equal(one.encoder.get_weights()[0], other.encoder.get_weights()[0])


def test_outside_a_search_it_trains_on_all_and_returns_the_history():
    hypermodel = SiameseHyperModel(encoder, SearchSpace(batch_size=12, learning_rate=0.01))
    hp = keras_tuner.HyperParameters()
    history = hypermodel.fit(hp, hypermodel.build(hp), *digits(), epochs=2)
    assert isinstance(history, keras.callbacks.History)
    assert sorted(history.history) == ["loss"]
    x, labels = digits()
    history = hypermodel.fit(hp, hypermodel.build(hp), x, labels, epochs=1, validation_data=(x, labels))
    assert "val_eer" in history.history
    with pytest.raises(ValueError, match="`cv` must be None outside a search"):
        hypermodel.fit(hp, hypermodel.build(hp), x, labels, cv=3)


def test_an_encoder_takes_fields_hp_or_both():
    space = SearchSpace(embedding_dim=[8], encoder={"depth": [2, 3]})
    seen = []

    def by_name(embedding_dim, depth, other=7):
        seen.append((embedding_dim, depth, other))
        return encoder(embedding_dim)

    def by_hp(hp):
        seen.append((hp.get("learning_rate"), hp.Int("layers", 1, 2)))
        return encoder()

    def by_both(hp, depth, **others):
        seen.append((hp.get("depth"), depth, others))
        return encoder()

    hp = keras_tuner.HyperParameters()
    SiameseHyperModel(by_name, space).build(keras_tuner.HyperParameters())
    SiameseHyperModel(by_hp).build(hp)
    SiameseHyperModel(by_both, space).build(keras_tuner.HyperParameters())
    assert seen == [(8, 2, 7), (1e-3, 1), (2, 2, {"embedding_dim": 8})]
    assert "layers" in hp.values


# Folds that are not worth their time


def test_a_trial_that_is_worse_fold_by_fold_is_given_up(tmp_path, scripted):
    curves = {0.5: iter([0.1, 0.4, 0.4]), 0.25: iter([0.2]), 0.125: iter([0.05, 0.35, 0.4])}
    scripted(lambda model, sequence: {"val_eer": [next(curves[float(model.loss.margin)])]})
    hypermodel = SiameseHyperModel(encoder, SearchSpace(margin=[0.5, 0.25, 0.125]))
    tuner = tuner_of(hypermodel, tmp_path, kind="GridSearch", max_trials=None)
    x, labels = digits()
    tuner.search(x, labels, cv=3, give_up=0.05)
    results = SearchResults.of(tuner)
    assert [len(trial.records) for trial in results.trials] == [3, 1, 3]
    # 0.2 alone would beat the mean 0.3 of the first: it met the easy fold only, where the first had 0.1.
    np.testing.assert_allclose([trial.value for trial in results.trials], [0.3, 0.4, 0.8 / 3])
    assert results.cv_results_["rank_test_score"].tolist() == [2, 3, 1]
    assert "given up after 1 of 3 folds" in str(results)
    assert next(curves[0.5], None) is None


@pytest.mark.parametrize(
    ("values", "best", "aim", "give_up", "expected"),
    [
        ([0.3], [0.2, 0.2], "val_eer", 0.05, True),
        ([0.3], [0.2, 0.2], "val_eer", 0.15, False),
        ([0.3, 0.1], [0.2, 0.2, 0.2], "val_eer", 0.05, False),
        ([0.7], [0.9, 0.9], "val_auc", 0.1, True),
        ([0.9], [0.7, 0.7], "val_auc", 0.1, False),
        ([0.3], [0.2, 0.2], "val_eer", None, False),
        ([0.3], None, "val_eer", 0.05, False),
        ([], [0.2, 0.2], "val_eer", 0.05, False),
    ],
)
def test_what_is_hopeless(values, best, aim, give_up, expected):
    best = None if best is None else np.array(best)
    assert folds.is_hopeless(np.array(values), best, objective(aim), give_up) == expected


# Failures


def test_a_failed_trial_is_logged_with_its_values_and_traceback_and_counted(tmp_path, scripted, caplog):
    def curves(model, sequence):
        if model.loss.margin == 0.25:
            raise OverflowError("no room for a quarter")
        return {"val_eer": [0.5]}

    scripted(curves)
    hypermodel = SiameseHyperModel(encoder, SearchSpace(margin=[0.5, 0.25, 0.125]))
    tuner = tuner_of(hypermodel, tmp_path, kind="GridSearch", max_trials=None)
    with caplog.at_level(logging.WARNING):
        tuner.search(*small(), cv=2)
    (message,) = [one.message for one in caplog.records if one.name.startswith("keras_siamese")]
    assert message.startswith("Trial 0001 of {")
    assert "'margin': 0.25" in message
    assert "failed with OverflowError: no room for a quarter\nTraceback" in message
    results = SearchResults.of(tuner)
    assert list(results.failures) == ["0001"]
    assert "OverflowError: no room for a quarter" in results.failures["0001"]
    assert "3 trials, 1 failed" in results.summary()
    assert "failed: OverflowError: no room for a quarter" in str(results)
    assert np.isnan(results.cv_results_["mean_test_score"]).tolist() == [False, True, False]
    assert results.cv_results_["rank_test_score"].tolist() == [1, 3, 1]


def test_if_all_trials_fail_the_results_raise_the_first_error(tmp_path, scripted):
    def curves(model, sequence):
        raise OverflowError(f"no room for {model.loss.margin}")

    scripted(curves)
    space = SearchSpace(margin=[0.5, 0.25])
    tuner = tuner_of(SiameseHyperModel(encoder, space), tmp_path, kind="GridSearch", max_trials=None)
    tuner.search(*small(), cv=2)
    with pytest.raises(RuntimeError, match=r"(?s)2 of 2 trials failed; first .*'margin': 0.5.*no room for 0.5"):
        SearchResults.of(tuner)


def test_epochs_with_nan_are_never_best(tmp_path, scripted):
    nan = float("nan")
    curves = {0.5: [nan, 0.25], 0.25: [0.125, nan], 0.125: [nan, nan]}
    scripted(lambda model, sequence: {"val_eer": curves[float(model.loss.margin)]})
    space = SearchSpace(margin=[0.5, 0.25, 0.125])
    tuner = tuner_of(SiameseHyperModel(encoder, space), tmp_path, kind="GridSearch", max_trials=None)
    tuner.search(*small(), cv=2)
    assert [trial.status for trial in trials_in(tuner)] == ["COMPLETED", "COMPLETED", "FAILED"]
    assert [trial.score for trial in trials_in(tuner)[:2]] == [0.25, 0.125]
    assert "FloatingPointError: val_eer is NaN in every epoch" in SearchResults.of(tuner).failures["0002"]
    assert tuner.get_best_models()[0].loss.margin == 0.25


# Divergence


@pytest.mark.parametrize("on_divergence", ["warn", "stop"])
def test_a_diverging_trial_is_tagged_with_its_cause(tmp_path, on_divergence):
    """Labels without meaning: held-out pairs stay at chance, whatever the loss does."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(size=(96, 8)).astype("float32"), rng.permutation(np.arange(96) // 6)

    def linear(embedding_dim=4):
        return keras.Sequential([keras.Input((8,)), keras.layers.Dense(embedding_dim)])

    space = SearchSpace(learning_rate=1e-9, margin=0.01, batch_size=32)
    tuner = tuner_of(SiameseHyperModel(linear, space), tmp_path, max_trials=1)
    tuner.search(x, labels, cv=2, epochs=12, on_divergence=on_divergence, callbacks=[Shrink()])
    results = SearchResults.of(tuner)
    (trial,) = results.trials
    flags = [record["flags"] for record in trial.records]
    assert all(flags)
    assert trial.cause == "margin"
    assert results.causes == {trial.cause: 1}
    assert f"1 diverged ({trial.cause} 1)" in results.summary()
    assert f"diverged: {trial.cause}" in str(results)
    if on_divergence == "stop":
        assert all(len(one) == 1 for one in flags), "the first flag ends the fit"
    else:
        assert all(len(one) > 1 for one in flags)


def test_a_run_that_does_not_diverge_has_no_cause(tmp_path, scripted):
    fits = scripted(lambda model, sequence: {"val_eer": [0.5]})
    tuner = tuner_of(SiameseHyperModel(encoder), tmp_path, max_trials=1)
    tuner.search(*small(), cv=2, on_divergence="warn")
    assert all(any(isinstance(one, DivergenceMonitor) for one in fit["callbacks"]) for fit in fits)
    results = SearchResults.of(tuner)
    assert (results.causes, results.trials[0].cause) == ({}, None)


# A search goes on


SEARCH = """
import sys, time
sys.path.insert(0, {tests!r})
from tests.tuning import test_hypermodel as test
x, labels = test.digits()
space = test.SearchSpace(embedding_dim=[2, 3, 4, 5], batch_size=12)

def encoder(embedding_dim):
    print("built", embedding_dim, flush=True)
    return test.encoder(embedding_dim)

tuner = test.tuner_of(test.SiameseHyperModel(encoder, space), {folder!r}, max_trials=4)
tuner.search(x, labels, cv=3, epochs={epochs})
print("finished", [(one.status, one.hyperparameters.values["embedding_dim"]) for one in test.trials_in(tuner)])
"""


@pytest.mark.slow
def test_a_killed_search_goes_on_without_repeating_a_finished_trial(tmp_path):
    command = SEARCH.format(tests=str(Path(__file__).resolve().parents[2]), folder=str(tmp_path), epochs=2)
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}

    def run(until=None):
        process = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", command], stdout=subprocess.PIPE, text=True, env=environment
        )
        lines = []
        for line in process.stdout:
            lines.append(line.strip())
            if until and until(lines):
                process.send_signal(signal.SIGKILL)
                break
        process.stdout.read()
        process.stdout.close()
        process.wait(timeout=60)
        return lines

    def third_fold_of_the_second_trial(lines):
        folder = tmp_path / "untitled_project" / "trial_1" / "folds.json"
        return folder.exists() and len(json.loads(folder.read_text())) == 1 and lines[-1].startswith("built")

    run(until=third_fold_of_the_second_trial)
    first = json.loads((tmp_path / "untitled_project" / "trial_0" / "trial.json").read_text())
    interrupted = json.loads((tmp_path / "untitled_project" / "trial_1" / "trial.json").read_text())
    assert (first["status"], interrupted["status"]) == ("COMPLETED", "RUNNING")
    *built, finished = [line for line in run() if line.startswith(("built", "finished"))]
    dims = [int(line.split()[1]) for line in built]
    assert finished.count("COMPLETED") == 4
    assert first["hyperparameters"]["values"]["embedding_dim"] not in dims, "not trained again"
    assert json.loads((tmp_path / "untitled_project" / "trial_0" / "trial.json").read_text()) == first
    assert dims.count(interrupted["hyperparameters"]["values"]["embedding_dim"]) == 3, "its three folds begin anew"


def test_a_finished_search_is_read_back(searched):
    tuner, folder = searched
    again = tuner_of(tuner.hypermodel, folder, max_trials=4)
    again.search(*digits(), cv=3, epochs=2)
    assert [one.score for one in trials_in(again)] == [one.score for one in trials_in(tuner)]
    assert str(SearchResults.of(again)) == str(SearchResults.of(tuner))


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cv": 1}, "`cv` must be at least 2; got 1"),
        ({"cv": 7}, "`labels` must hold at least as many identities as folds, cv=7; got 6"),
        ({"cv": 2, "epochs": 0}, "`epochs` must be at least 1; got 0"),
        ({"cv": 2, "validation_data": small()}, "`validation_data` must be None where `cv` divides the samples"),
        ({"cv": 2, "on_divergence": "raise"}, "`on_divergence` must be one of None, 'warn', 'stop'; got 'raise'"),
        ({"cv": 2, "give_up": -1}, r"`give_up` must be in \[0, inf\]; got -1"),
        ({"cv": 2, "batch_size": 8}, "`search` takes x, labels, validation_data, cv, .*verbose; got batch_size"),
        ({}, "`objective` must be a key that is logged, which without .* is loss only; got val_eer"),
        ({"labels": np.arange(3), "cv": 2}, "`labels` must have one entry for each of the 18 samples; got 3"),
    ],
)
def test_a_search_that_cannot_work_ends_at_once(tmp_path, scripted, options, message):
    fits = scripted(lambda model, sequence: {"val_eer": [0.5]})
    x, labels = small()
    labels = options.pop("labels", labels)
    tuner = tuner_of(SiameseHyperModel(encoder), tmp_path)
    with pytest.raises(keras_tuner.errors.FatalError, match=message):
        tuner.search(x, labels, **options)
    assert fits == []


@pytest.mark.parametrize(
    ("aim", "message"),
    [
        (keras_tuner.Objective("val_eer", "max"), "`objective` must have direction 'min' for 'val_eer'; got 'max'"),
        (keras_tuner.Objective("val_loss", "min"), "`objective` must be one of val_eer, val_auc, .*got 'val_loss'"),
        (keras_tuner.Objective("val_tar@far=0.0001", "max"), "too few impostor pairs for `objective`"),
        (None, "`objective` must be one of val_eer, .*got 'default_objective'"),
    ],
)
def test_an_objective_that_nobody_logs_is_refused(tmp_path, scripted, aim, message):
    scripted(lambda model, sequence: {"val_eer": [0.5]})
    tuner = keras_tuner.RandomSearch(SiameseHyperModel(encoder), objective=aim, directory=tmp_path, max_trials=1)
    with pytest.raises(keras_tuner.errors.FatalValueError, match=message):
        tuner.search(*small(), cv=2)


def test_several_objectives_are_summed_as_kerastuner_does(tmp_path, scripted):
    scripted(lambda model, sequence: {"val_eer": [0.5, 0.25], "val_auc": [0.5, 0.75]})
    aims = [objective("val_eer"), objective("val_auc")]
    tuner = keras_tuner.RandomSearch(SiameseHyperModel(encoder), objective=aims, directory=tmp_path, max_trials=1)
    tuner.oracle.verbose = 0
    tuner.search(*small(), cv=2)
    assert trials_in(tuner)[0].score == 0.25 - 0.75


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"space": SearchSpace(margin=[0.5, 0.25])}, "space "),
        ({"seed": 1}, "seed 0, not 1"),
        ({"cv": 3}, "cv 2, not 3"),
        ({"x": small()[0] + 1}, "data "),
    ],
)
def test_a_folder_of_another_search_is_refused(tmp_path, scripted, change, message):
    scripted(lambda model, sequence: {"val_eer": [0.5]})
    x, labels = small()

    def run(trials, space=None, seed=0, cv=2, x=x):
        space = space or SearchSpace(learning_rate=Range(1e-3, 1e-2))
        tuner_of(SiameseHyperModel(encoder, space, seed=seed), tmp_path, max_trials=trials).search(x, labels, cv=cv)

    run(1)
    with pytest.raises(keras_tuner.errors.FatalValueError, match=f"`directory` holds another search.*{message}"):
        run(2, **change)
    run(3)


def test_a_folder_of_another_kind_of_search_is_refused(tmp_path, scripted):
    scripted(lambda model, sequence: {"val_eer": [0.5]})

    class Other(keras_tuner.HyperModel):
        def build(self, hp):
            hp.Float("learning_rate", 1e-3, 1e-2)
            return keras.Sequential([keras.layers.Dense(1)])

        def fit(self, hp, model, **options):
            model.build((None, 1))
            return {"val_eer": 0.5}

    tuner_of(Other(), tmp_path, max_trials=1).search()
    tuner = tuner_of(SiameseHyperModel(encoder, SearchSpace(learning_rate=Range(1e-3, 1e-2))), tmp_path, max_trials=2)
    with pytest.raises(keras_tuner.errors.FatalValueError, match="`directory` holds another search"):
        tuner.search(*small(), cv=2)


def test_what_the_space_chooses_the_tuner_may_not(tmp_path):
    tuner = tuner_of(SiameseHyperModel(encoder), tmp_path, loss="mse")
    with pytest.raises(keras_tuner.errors.FatalValueError, match="`loss` is the space's to choose"):
        tuner.search(*small(), cv=2)


@pytest.mark.parametrize(
    ("build", "options", "error", "message"),
    [
        (encoder(), {}, TypeError, "`encoder` must be a function that returns a new encoder for each trial; got <Seq"),
        (3, {}, TypeError, "`encoder` must be a function .*of type int"),
        (lambda depth: None, {}, ValueError, "`space` must hold depth, which `encoder` needs"),
        (
            lambda: None,
            {"space": SearchSpace(embedding_dim=8)},
            ValueError,
            "`encoder` must take embedding_dim, .*none",
        ),
        (lambda dim=3: None, {"space": SearchSpace(encoder={"deep": 8})}, ValueError, "must take deep, .*takes dim"),
        (encoder, {"space": {"margin": 1}}, TypeError, "`space` must be a SearchSpace; got a dict"),
        (encoder, {"augment": 3}, TypeError, "`augment` must be a function of the strength; got 3"),
        (encoder, {"seed": -1}, ValueError, "`seed` must be at least 0; got -1"),
    ],
)
def test_a_bad_hypermodel_is_refused(build, options, error, message):
    with pytest.raises(error, match=message):
        SiameseHyperModel(build, **options)


def test_an_encoder_that_returns_none_ends_the_search_at_once(tmp_path):
    with pytest.raises(TypeError, match="`encoder` must return a model or a layer; got None"):
        tuner_of(SiameseHyperModel(lambda: None), tmp_path)


@pytest.mark.parametrize("name", ["val_threshold", "val_loss", "eer", None])
def test_an_unknown_objective_is_refused(name):
    with pytest.raises(ValueError, match=f"`objective` must be one of val_eer, .*got {name!r}"):
        objective(name)


def test_objectives_know_their_direction():
    directions = {name: objective(name).direction for name in ("val_eer", "val_auc", "val_tar@far=0.02", "loss")}
    assert directions == {"val_eer": "min", "val_auc": "max", "val_tar@far=0.02": "max", "loss": "min"}


def test_each_key_that_the_monitor_writes_has_a_direction_but_the_threshold():
    keys = [key for key in VerificationMonitor(digits()).keys if key != "val_threshold"]
    assert [objective(key).name for key in keys] == keys
