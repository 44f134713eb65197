"""The hypermodel under KerasTuner's tuners: its folds and figures against a loop written by hand, and checkpoints."""

import json
import random
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese import scoring
from keras_siamese.attach.anatomy import dissect
from keras_siamese.callbacks import VerificationMonitor
from keras_siamese.data import IdentityKFold, PairSequence
from keras_siamese.tuning import Range, SearchResults, SearchSpace, SiameseHyperModel, objective
from tests.support.searches import digits, encoder, few, quiet, script, trials_in, tuner_of

pytestmark = quiet

FOLDS = 2


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
    tuner = tuner_of(SiameseHyperModel(encoder, space, seed=3), folder, max_trials=3)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("gc.collect", lambda *generation: 0)
        tuner.search(*digits(), cv=FOLDS, epochs=2)
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
    for number, (train, held_out) in enumerate(IdentityKFold(FOLDS, seed=3).split(x, labels)):
        random.seed(3 + number)
        siamese = ks.SiameseWrapper(encoder(values["embedding_dim"]), distance="euclidean")
        loss = ks.losses.ContrastiveLoss(margin=2 * values["relative_margin"])
        siamese.compile(keras.optimizers.Adam(values["learning_rate"]), loss=loss)
        pairs = PairSequence(x[train], labels[train], batch_size=12, seed=3)
        monitor = VerificationMonitor((x[held_out], labels[held_out]))
        curves = siamese.fit(pairs, epochs=2, shuffle=False, verbose=0, callbacks=[monitor]).history
        by_hand.append(min(curves["val_eer"]))
    assert len(set(by_hand)) == FOLDS, "the oracle tells the folds apart"
    told = {name: trial.metrics.get_best_value(name) for name in trial.metrics.metrics}
    np.testing.assert_allclose([told[f"split{fold}_val_eer"] for fold in range(FOLDS)], by_hand, atol=1e-6)
    assert told["val_eer"] == trial.score == pytest.approx(np.mean(by_hand))
    assert told["std_val_eer"] == pytest.approx(np.std(by_hand))
    assert 0.5 < told["val_auc"] <= 1


def test_the_best_models_are_the_best_epoch_of_the_best_fold(searched):
    tuner, _ = searched
    x, labels = digits()
    held_out = [rows for _, rows in IdentityKFold(FOLDS, seed=3).split(x, labels)]
    for trial, model in zip(tuner.oracle.get_best_trials(2), tuner.get_best_models(2), strict=True):
        splits = [trial.metrics.get_best_value(f"split{fold}_val_eer") for fold in range(FOLDS)]
        rows = held_out[int(np.argmin(splits))]
        scored = scoring.score(dissect(model, x), scoring.Trials.of((x[rows], labels[rows])))
        assert ks.verification.eer(scored.same, scored.scores) == pytest.approx(min(splits), abs=1e-6)


@pytest.mark.each_backend
def test_a_small_search(tmp_path):
    """On each backend: the folds of a trial are trained, verified, and the best epoch is kept."""
    x, labels = digits()
    space = SearchSpace(embedding_dim=8, learning_rate=0.01, batch_size=12)
    tuner = tuner_of(SiameseHyperModel(encoder, space), tmp_path, max_trials=1)
    tuner.search(x, labels, cv=2, epochs=2, verbose=0)
    (trial,) = SearchResults.of(tuner).trials
    splits = [record["logs"]["val_eer"] for record in trial.records]
    assert trial.value == pytest.approx(np.mean(splits)) and max(splits) < 0.45
    rows = [rows for _, rows in IdentityKFold(2, seed=0).split(x, labels)][int(np.argmin(splits))]
    scored = scoring.score(tuner.get_best_models()[0], scoring.Trials.of((x[rows], labels[rows])))
    assert ks.verification.eer(scored.same, scored.scores) == pytest.approx(min(splits), abs=1e-6)


def test_no_identity_stands_on_both_sides(monkeypatch, tmp_path):
    fits = script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})
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


def test_the_monitor_stands_before_what_reads_it_and_callbacks_are_copied(monkeypatch, tmp_path):
    fits = script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})
    stopper = keras.callbacks.EarlyStopping("val_eer", mode="min")
    tuner = tuner_of(SiameseHyperModel(encoder, SearchSpace(mining="hard")), tmp_path, max_trials=1)
    tuner.search(*few(), cv=2, callbacks=[stopper])
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


def test_hyperband_with_folds_is_refused_with_the_reason(tmp_path, monkeypatch):
    fits = script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})
    tuner = tuner_of(SiameseHyperModel(encoder), tmp_path, kind="Hyperband", max_epochs=2)
    with pytest.raises(keras_tuner.errors.FatalValueError, match="`cv` must be None with Hyperband.*have seen samples"):
        tuner.search(*few(), cv=2)
    assert fits == []


def test_executions_of_a_trial_differ_and_a_build_repeats(tmp_path, monkeypatch):
    fits = script(monkeypatch, lambda model, sequence: {"val_eer": [0.5]})
    tuner = tuner_of(SiameseHyperModel(encoder), tmp_path, max_trials=1, executions_per_trial=3)
    x, labels = few()
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


def test_a_finished_search_is_read_back(searched):
    tuner, folder = searched
    again = tuner_of(tuner.hypermodel, folder, max_trials=3)
    again.search(*digits(), cv=FOLDS, epochs=2)
    assert [one.score for one in trials_in(again)] == [one.score for one in trials_in(tuner)]
    assert str(SearchResults.of(again)) == str(SearchResults.of(tuner))


def test_several_objectives_are_summed_as_kerastuner_does(tmp_path, monkeypatch):
    script(monkeypatch, lambda model, sequence: {"val_eer": [0.5, 0.25], "val_auc": [0.5, 0.75]})
    aims = [objective("val_eer"), objective("val_auc")]
    tuner = keras_tuner.RandomSearch(SiameseHyperModel(encoder), objective=aims, directory=tmp_path, max_trials=1)
    tuner.oracle.verbose = 0
    tuner.search(*few(), cv=2)
    assert trials_in(tuner)[0].score == 0.25 - 0.75


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
