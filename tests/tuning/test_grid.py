"""The grid search: its folds and scores against a loop written by hand, what it makes of `build_fn`, bad input."""

import gc
import itertools
import random
import statistics
import sys

import keras
import numpy as np
import pytest
from sklearn.linear_model import Ridge
from sklearn.model_selection import GridSearchCV

import keras_siamese as ks
from keras_siamese import scoring, tuning
from keras_siamese.callbacks import VerificationMonitor
from keras_siamese.data import IdentityKFold, PairSequence
from keras_siamese.tuning import SiameseGridSearch
from keras_siamese.tuning.grid import set_aside
from tests.support.searches import SIZE, Fake, digits, encoder, history_of, quiet, search_of, small

pytestmark = quiet

GRID = {"margin": [0.5, 1.0], "embedding_dim": [2, 8], "learning_rate": [0.01]}
FOLDS = 2


# With PyTorch, Keras draws dropout from the global generator, which a search leaves alone.
DROPOUT = 0.0 if keras.backend.backend() == "torch" else 0.1


def rate_of(model):
    return float(keras.ops.convert_to_numpy(model.optimizer.learning_rate))


class Spy:
    """Records what each fit was given, in order: the sequence, the callbacks and the epochs."""

    def __init__(self):
        self.built, self.fits = [], []

    def build_fn(self, embedding_dim):
        self.built.append(embedding_dim)
        return encoder(embedding_dim, DROPOUT)

    def wrapper(self):
        fits = self.fits

        class Spied(ks.SiameseWrapper):
            def fit(self, sequence, **options):
                fits.append((self, sequence, options))
                return super().fit(sequence, **options)

        return Spied


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """`(search, spy, folder)` of a search on the digits: 2 × 2 × 1 combinations, 2 folds, 2 epochs."""
    spy, folder = Spy(), tmp_path_factory.mktemp("search")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tuning.recipe, "SiameseWrapper", spy.wrapper())
        search = SiameseGridSearch(spy.build_fn, GRID, FOLDS, epochs=2, directory=folder, seed=5, verbose=0, **SIZE)
        assert search.fit(*digits()) is search
    return search, spy, folder


@pytest.fixture(scope="module")
def by_hand():
    """The EER at the best epoch and that epoch, from 1, each `(2, folds)`: of the first and the last combination."""
    x, labels = digits()
    values, epochs = [], []
    for margin, embedding_dim in ((0.5, 2), (1.0, 8)):
        for fold, (train, held_out) in enumerate(IdentityKFold(FOLDS, seed=5).split(x, labels)):
            random.seed(5 + fold)
            siamese = ks.SiameseWrapper(encoder(embedding_dim, DROPOUT), distance="euclidean")
            siamese.compile(keras.optimizers.Adam(0.01), loss=ks.losses.ContrastiveLoss(margin=margin))
            history = siamese.fit(
                PairSequence(x[train], labels[train], batch_size=12, seed=5),
                epochs=2,
                verbose=0,
                shuffle=False,
                callbacks=[VerificationMonitor((x[held_out], labels[held_out]))],
            ).history["val_eer"]
            values.append(min(history))
            epochs.append(1 + history.index(min(history)))
    return np.reshape(values, (2, FOLDS)), np.reshape(epochs, (2, FOLDS))


@pytest.mark.each_backend
@pytest.mark.deep_on("tensorflow")
def test_a_small_search():
    """On each backend: two folds and the refit against the same fits written by hand."""
    x, labels = digits()
    search = search_of(encoder, {"margin": [0.5]}, cv=2, epochs=1, seed=5).fit(x, labels)
    for fold, (train, held_out) in enumerate(IdentityKFold(2, seed=5).split(x, labels)):
        random.seed(5 + fold)
        siamese = ks.SiameseWrapper(encoder(), distance="euclidean")
        siamese.compile(keras.optimizers.Adam(), loss=ks.losses.ContrastiveLoss(margin=0.5))
        pairs = PairSequence(x[train], labels[train], batch_size=12, seed=5)
        monitor = VerificationMonitor((x[held_out], labels[held_out]))
        history = siamese.fit(pairs, epochs=1, verbose=0, shuffle=False, callbacks=[monitor]).history
        assert search.cv_results_[f"split{fold}_val_eer"][0] == pytest.approx(history["val_eer"][0], abs=1e-6)
    assert search.best_model_.predict((x[:5], x[5:10]), verbose=0).shape == (5, 1)


def monitor_in(callbacks):
    return next(one for one in callbacks if isinstance(one, VerificationMonitor))


def test_scores_are_those_of_a_loop_written_by_hand(finished, by_hand):
    results, (values, epochs) = finished[0].cv_results_, by_hand
    assert len(np.unique(values)) == 4, "the oracle tells the fits apart"
    for fold in range(FOLDS):
        np.testing.assert_allclose(results[f"split{fold}_val_eer"][[0, 3]], values[:, fold], atol=1e-6)
        np.testing.assert_array_equal(results[f"split{fold}_best_epoch"][[0, 3]], epochs[:, fold])
    assert results["params"][0] == {"margin": 0.5, "embedding_dim": 2, "learning_rate": 0.01}
    assert results["params"][3] == {"margin": 1.0, "embedding_dim": 8, "learning_rate": 0.01}


def test_means_spreads_and_ranks_follow_from_the_folds(finished):
    results = finished[0].cv_results_
    for row in range(4):
        values = [float(results[f"split{fold}_val_eer"][row]) for fold in range(FOLDS)]
        assert [float(results[f"split{fold}_test_score"][row]) for fold in range(FOLDS)] == [-value for value in values]
        assert results["mean_val_eer"][row] == pytest.approx(statistics.fmean(values))
        assert results["mean_test_score"][row] == pytest.approx(-statistics.fmean(values))
        assert results["std_test_score"][row] == pytest.approx(statistics.pstdev(values))
        assert results["std_val_eer"][row] == pytest.approx(statistics.pstdev(values))
    means = results["mean_val_eer"].tolist()
    assert results["rank_test_score"].tolist() == [1 + sum(other < mean for other in means) for mean in means]


def test_the_best_is_refitted_on_all_samples(finished):
    search, spy, _ = finished
    results = search.cv_results_
    best = results["mean_val_eer"].argmin()
    margin, embedding_dim, learning_rate = list(itertools.product(*GRID.values()))[best]
    assert search.best_index_ == best
    assert search.best_params_ == {"margin": margin, "embedding_dim": embedding_dim, "learning_rate": learning_rate}
    assert search.best_score_ == results["mean_test_score"][best]
    assert search.refit_epochs_ == round(sum(results[f"split{fold}_best_epoch"][best] for fold in range(FOLDS)) / FOLDS)
    assert search.failures_ == {}

    model, sequence, options = spy.fits[-1]
    assert model is search.best_model_
    assert len(sequence.x) == 120
    assert options["epochs"] == search.refit_epochs_
    assert [type(one).__name__ for one in options["callbacks"]] == ["SetEpoch"]
    assert rate_of(model) == pytest.approx(learning_rate)
    assert model.loss.margin == margin

    x, labels = digits()
    assert model.predict((x[:5], x[5:10]), verbose=0).shape == (5, 1)
    scored = scoring.score(model, scoring.Trials.of((x, labels)))
    assert scored.embeddings.shape == (120, embedding_dim)
    assert ks.verification.eer(scored.same, scored.scores) < 0.4


def test_no_identity_stands_on_both_sides_and_each_is_held_out_once(finished):
    _, spy, _ = finished
    x, labels = digits()
    label_of = {row.tobytes(): int(label) for row, label in zip(x, labels, strict=True)}
    assert len(spy.fits) == 4 * FOLDS + 1
    for trial in range(4):
        held_out = []
        for _, sequence, options in spy.fits[FOLDS * trial : FOLDS * (trial + 1)]:
            trained_on = {label_of[row.tobytes()] for row in sequence.x}
            monitored = {label_of[row.tobytes()] for row in monitor_in(options["callbacks"]).trials.items}
            assert not trained_on & monitored
            assert trained_on | monitored == set(range(10))
            held_out += monitored
        assert sorted(held_out) == list(range(10))
    assert len({id(model) for model, _, _ in spy.fits}) == len(spy.fits), "each fit has a model of its own"
    assert spy.built == [2, 2, 8, 8] * 2 + [finished[0].best_params_["embedding_dim"]]


def test_results_have_scikit_learns_keys_and_types(finished):
    ours = finished[0].cv_results_
    theirs = GridSearchCV(Ridge(), {"alpha": [1.0, 2.0], "tol": [1e-3, 1e-2]}, cv=FOLDS).fit(*small()).cv_results_
    names = {"param_alpha": "param_margin", "param_tol": "param_embedding_dim"}
    for key in theirs.keys() - {"mean_score_time", "std_score_time"}:
        column = ours[names.get(key, key)]
        assert len(column) == 4
        assert isinstance(column, type(theirs[key])), key
    assert ours["rank_test_score"].dtype == theirs["rank_test_score"].dtype
    assert ours["param_embedding_dim"].tolist() == [2, 8, 2, 8]
    assert not ours["param_embedding_dim"].mask.any()
    assert ours["params"] == [dict(zip(GRID, row, strict=True)) for row in itertools.product(*GRID.values())]
    assert np.all(ours["mean_fit_time"] > 0)


def test_results_make_a_data_frame(finished):
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame(finished[0].cv_results_)
    assert len(frame) == 4
    assert frame["param_margin"].tolist() == [0.5, 0.5, 1.0, 1.0]


def test_a_finished_search_is_read_back_and_only_refitted(finished):
    search, _, folder = finished
    spy = Spy()
    again = SiameseGridSearch(spy.build_fn, GRID, FOLDS, epochs=2, directory=folder, seed=5, verbose=0, **SIZE)
    again.fit(*digits())
    assert spy.built == [search.best_params_["embedding_dim"]]
    assert again.best_params_ == search.best_params_
    for key, column in search.cv_results_.items():
        np.testing.assert_array_equal(again.cv_results_[key], column)
    weights = zip(search.best_model_.get_weights(), again.best_model_.get_weights(), strict=True)
    assert all(np.allclose(one, other, atol=1e-6) for one, other in weights), "the refit depends on the seed alone"


def functional_model():
    left, right, one = keras.Input((64,)), keras.Input((64,)), encoder()
    model = keras.Model((left, right), ks.DistanceLayer("cosine")([one(left), one(right)]))
    model.compile("sgd", loss=ks.losses.ContrastiveLoss())
    return model


def compiled_wrapper():
    siamese = ks.SiameseWrapper(encoder(), head="logistic")
    siamese.compile("sgd", loss=ks.losses.WeightedBinaryCrossentropy())
    return siamese


@pytest.mark.parametrize(
    ("build_fn", "loss", "optimizer"),
    [
        (encoder, "ContrastiveLoss", "Adam"),
        (lambda: ks.SiameseWrapper(encoder(), distance="cosine"), "ContrastiveLoss", "Adam"),
        (compiled_wrapper, "WeightedBinaryCrossentropy", "SGD"),
        (functional_model, "ContrastiveLoss", "SGD"),
    ],
)
def test_what_build_fn_returns_is_completed_and_no_more(build_fn, loss, optimizer):
    x, labels = digits()
    search = search_of(build_fn, {}, epochs=2, objective="val_auc").fit(x[:72], labels[:72])
    assert search.best_params_ == {}
    assert len(search.cv_results_["mean_val_auc"]) == 1
    assert type(search.best_model_.loss).__name__ == loss
    assert type(search.best_model_.optimizer).__name__ == optimizer


@pytest.mark.parametrize(
    "build_fn", [encoder, lambda margin, learning_rate: ks.SiameseWrapper(encoder()), lambda **anything: encoder()]
)
def test_margin_and_rate_reach_the_default_compile_whether_or_not_build_fn_takes_them(build_fn, monkeypatch):
    fitted = []

    def fit(model, sequence, **options):
        fitted.append((model.loss.margin, rate_of(model)))
        return history_of({"val_eer": [0.5]})

    monkeypatch.setattr(ks.SiameseWrapper, "fit", fit)
    search_of(build_fn, {"margin": [0.25], "learning_rate": [0.125, 0.5]}).fit(*small())
    assert fitted == [(0.25, 0.125), (0.25, 0.125), (0.25, 0.5), (0.25, 0.5), (0.25, 0.125)]


def test_inputs_may_be_dicts_and_labels_strings():
    x, labels = digits()

    def build_fn(embedding_dim):
        inputs = {name: keras.Input((32,), name=name) for name in ("left", "right")}
        return keras.Model(inputs, keras.layers.Dense(embedding_dim)(keras.layers.Concatenate()(list(inputs.values()))))

    source = {"left": x[:72, :32], "right": x[:72, 32:]}
    search = search_of(build_fn, {"embedding_dim": [3]}, epochs=1).fit(source, np.array(list("abcdef"))[labels[:72]])
    assert 0 <= search.cv_results_["mean_val_eer"][0] < 0.5


def test_any_rate_can_be_the_objective():
    search = search_of(encoder, {}, epochs=1, objective="val_tar@far=0.05").fit(*digits())
    assert 0 < search.best_score_ == search.cv_results_["mean_val_tar@far=0.05"][0] <= 1


@pytest.mark.parametrize(
    ("build_fn", "grid", "error", "message"),
    [
        (lambda: None, {}, TypeError, "`build_fn` must return an encoder.*got None"),
        (functional_model, {"margin": [1.0]}, ValueError, "`build_fn` must take margin.*cannot be given these values"),
    ],
)
def test_what_build_fn_must_not_return_ends_the_search_at_once(build_fn, grid, error, message, monkeypatch):
    monkeypatch.setattr(keras.Model, "fit", None)
    with pytest.raises(error, match=message):
        search_of(build_fn, grid).fit(*digits())


def test_any_json_value_reaches_build_fn_as_it_is():
    values = [None, [64, 128], (1, 2), "euclidean", 1, 1.5, True, {"a": 1}]
    seen = []

    def build_fn(layers, rate):
        seen.append((repr(layers), type(layers), rate, type(rate)))
        if isinstance(layers, list):
            layers.append("spoilt")
        return Fake({"val_eer": [0.5]})

    search = search_of(build_fn, {"layers": values, "rate": np.logspace(-2, -1, 2)}).fit(*small())
    pairs = itertools.product(values, np.logspace(-2, -1, 2).tolist())
    expected = [(repr(one), type(one), rate, float) for one, rate in pairs for _ in range(2)]
    assert seen[:-1] == expected
    assert search.cv_results_["param_layers"].tolist() == [one for one in values for _ in range(2)]
    assert search.param_grid["layers"][1] == [64, 128], "build_fn gets copies"


def test_lists_of_one_length_stay_values():
    search = search_of(lambda units: Fake({"val_eer": [0.5]}), {"units": [[1, 2], [3, 4]]}).fit(*small())
    assert search.cv_results_["param_units"].shape == (2,)
    assert search.best_params_ == {"units": [1, 2]}


@pytest.mark.parametrize(
    ("objective", "best", "score"),
    [("val_eer", 2, 0.0), ("val_auc", 1, 0.75), ("val_d_prime", 1, 0.75), ("loss", 2, 0.0)],
)
def test_direction_is_known_from_the_name(objective, best, score):
    series = [[0.5, 0.25, 0.5], [0.75, 0.5, 0.75], [0.0, 0.5, 0.5]]
    search = search_of(lambda which: Fake({objective: series[which]}), {"which": [0, 1, 2]}, objective=objective)
    search.fit(*small())
    assert search.best_params_ == {"which": best}
    assert search.best_score_ == score
    at = 1 + (np.argmin if best == 2 else np.argmax)(series, axis=1)
    np.testing.assert_array_equal(search.cv_results_["split1_best_epoch"], at)
    assert search.refit_epochs_ == at[best]


def test_callbacks_are_copied_for_each_fit_and_follow_the_monitor():
    seen = []

    def fit(sequence, callbacks, **options):
        seen.append(callbacks)
        return {"val_eer": [0.5]}

    given = [keras.callbacks.EarlyStopping("val_eer", mode="min"), keras.callbacks.CSVLogger("unused.csv")]
    search_of(lambda: Fake(fit), {}, callbacks=given).fit(*small())
    names = [[type(one).__name__ for one in callbacks] for callbacks in seen]
    assert names == [["SetEpoch", "VerificationMonitor", "EarlyStopping", "CSVLogger"]] * 2 + [
        ["SetEpoch", "CSVLogger"]
    ]
    assert len({id(one) for one in given} | {id(callbacks[-1]) for callbacks in seen}) == 5


def test_seeds_leave_pythons_generator_as_it_was():
    drawn = []

    def build_fn(which):
        drawn.append(random.random())
        return Fake({"val_eer": [0.5]})

    random.seed(3)
    before = random.getstate()
    search_of(build_fn, {"which": [0, 1]}, seed=8).fit(*small())
    assert random.getstate() == before
    assert drawn[:2] == drawn[2:4] == [random.Random(8).random(), random.Random(9).random()]
    assert drawn[4] == drawn[0]


def test_a_line_a_fit_is_shown_or_nothing(capfd, tmp_path):
    def run(verbose):
        build_fn = lambda dim: Fake({"val_eer": [dim / 10]})  # noqa: E731
        search_of(build_fn, {"dim": [1, 2]}, directory=tmp_path, verbose=verbose).fit(*small())
        return capfd.readouterr().out.splitlines()

    first, *fits, head, better, worse, count, best = run(verbose=1)
    assert first == "2 trials of 2 folds each; 0 trials were finished before"
    assert len(fits) == 4
    assert fits[2].startswith("[trial 2/2, fold 1/2] {'dim': 2}: val_eer 0.2000 at epoch 1 of 10, ")
    assert head.split() == ["rank", "trial", "val_eer", "±", "epoch", "seconds", "dim", "remark"]
    assert [line.split()[:5] + line.split()[6:] for line in (better, worse)] == [
        ["1", "0000", "0.1000", "0.0000", "1.0", "1"],
        ["2", "0001", "0.2000", "0.0000", "1.0", "2"],
    ]
    assert count == "2 trials"
    assert best == "best: {'dim': 1}: val_eer 0.1000; 1 epochs on all 12 samples"
    again, *table, last = run(verbose=1)
    assert again == "2 trials of 2 folds each; 2 trials were finished before"
    assert table == [head, better, worse, count]
    assert last == best
    assert run(verbose=0) == []


def test_a_missing_keras_tuner_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "keras_tuner", None)
    with pytest.raises(ImportError, match=r'keras_tuner is needed.*"keras-siamese\[tuner\]"'):
        search_of(encoder, {})


def unreached(dim=1, *, units=2):
    raise AssertionError("a model was built")


class Uncopiable(keras.callbacks.Callback):
    def __deepcopy__(self, memo):
        raise TypeError("cannot be copied")


@pytest.mark.parametrize(
    ("grid", "error", "message"),
    [
        ([{"dim": [1]}], TypeError, "must be a dict of lists of values; got a list"),
        ({"dims": [1]}, ValueError, r"must hold parameters of `build_fn` \(dim, units\).*got 'dims'"),
        ({"dim": []}, ValueError, r"\['dim'\]` must hold one value or several distinct ones; got \[\]"),
        ({"dim": [1, 2, 1]}, ValueError, r"\['dim'\]` must hold one value or several distinct ones; got \[1, 2, 1\]"),
        ({"dim": 3}, TypeError, r"\['dim'\]` must be a list; got 3 of type int"),
        ({"dim": "64"}, TypeError, r"\['dim'\]` must be a list; got '64' of type str"),
        ({"dim": [np.zeros(2)]}, TypeError, r"\['dim'\]` must hold values that JSON can hold; got \[array"),
        ({"dim": [1.0, float("nan")]}, TypeError, r"\['dim'\]` must hold values that JSON can hold; got \[1.0, nan\]"),
        ({"margin": [1.0, -1.0]}, ValueError, r"\['margin'\]` must be in \(0, inf\); got -1"),
        ({"margin": ["big"]}, TypeError, r"\['margin'\]` must be a number; got 'big'"),
        ({"learning_rate": [0.0]}, ValueError, r"\['learning_rate'\]` must be in \(0, inf\); got 0"),
    ],
)
def test_a_bad_grid_is_refused(grid, error, message):
    with pytest.raises(error, match=f"`param_grid.*{message}"):
        SiameseGridSearch(unreached, grid)


def test_what_is_no_build_fn_or_needs_more_than_the_grid_is_refused():
    with pytest.raises(TypeError, match="`build_fn` must be a function that returns a model; got a int"):
        SiameseGridSearch(3, {})
    with pytest.raises(ValueError, match=r"`param_grid` must hold depth, which `build_fn` needs; got \['dim'\]"):
        SiameseGridSearch(lambda dim, depth: None, {"dim": [1]})


@pytest.mark.parametrize(
    ("option", "value", "error", "message"),
    [
        ("cv", 1, ValueError, "must be at least 2; got 1"),
        ("cv", 2.5, TypeError, "must be an integer; got 2.5"),
        ("epochs", 0, ValueError, "must be at least 1; got 0"),
        ("batch_size", 0, ValueError, "must be at least 1; got 0"),
        ("seed", -1, ValueError, "must be at least 0; got -1"),
        ("verbose", 3, ValueError, "must be one of 0, 1; got 3"),
        ("objective", "val_loss", ValueError, "must be one of val_eer, val_auc, .*val_tar@far=0.01.*got 'val_loss'"),
        ("objective", "val_tar@far=2", ValueError, "must be one of .*got 'val_tar@far=2'"),
        ("objective", "val_tar@far=0.010", ValueError, "must be one of .*got 'val_tar@far=0.010'"),
        ("objective", None, ValueError, "must be one of .*got None"),
        ("callbacks", ["early"], TypeError, "must hold Keras callbacks.*got 'early' of type str"),
        ("callbacks", [VerificationMonitor(digits())], TypeError, "must hold Keras.*of type VerificationMonitor"),
        ("callbacks", [Uncopiable()], TypeError, "must be a list that copy.deepcopy can copy: cannot be copied"),
        ("callbacks", 3, TypeError, "must be a list that copy.deepcopy can copy: "),
        ("project_name", 3, TypeError, "must be a path; got 3 of type int"),
        ("directory", 3, TypeError, "must be a path; got 3 of type int"),
    ],
)
def test_a_bad_option_is_refused(option, value, error, message):
    with pytest.raises(error, match=f"`{option}` {message}"):
        SiameseGridSearch(unreached, {"dim": [1, 2]}, **{option: value})


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"labels": np.arange(3)}, "`labels` must have one entry for each of the 120 samples; got 3"),
        ({"labels": np.arange(120) % 2}, "`labels` must hold at least as many identities as folds, cv=3; got 2"),
        ({"labels": np.arange(120) % 4}, "Fold . of 3, with 1 identities, cannot be used: .* 0 impostor"),
        (
            {"labels": np.arange(120)},
            "Fold 1 of 3, with 40 identities, cannot be used: .* an identity with two samples",
        ),
        ({"x": np.full((120, 2), np.nan)}, "`x` must be finite; 120 of its 120 samples hold NaN"),
    ],
)
def test_bad_data_is_refused_before_any_model_is_built(data, message):
    x, labels = digits()
    with pytest.raises(ValueError, match=message):
        SiameseGridSearch(unreached, {"dim": [1, 2]}).fit(**{"x": x, "labels": labels, **data})


def test_a_rate_that_the_folds_cannot_support_is_refused():
    with pytest.raises(ValueError, match="Fold 1 of 3, with 4 identities, .*: too few impostor pairs for `objective`"):
        SiameseGridSearch(unreached, {}, objective="val_tar@far=0.0001").fit(*digits())


def test_a_misspelt_option_is_a_type_error():
    with pytest.raises(TypeError, match="epoch"):
        SiameseGridSearch(encoder, {}, epoch=3)


def test_a_search_sets_aside_only_what_existed_before_it():
    assert gc.get_freeze_count() == 0
    with pytest.raises(KeyError), set_aside():
        assert gc.get_freeze_count() > 10_000
        raise KeyError
    assert gc.get_freeze_count() == 0
    gc.freeze()  # as a program may do itself
    try:
        with set_aside():
            pass
        assert gc.get_freeze_count() > 0
    finally:
        gc.unfreeze()
