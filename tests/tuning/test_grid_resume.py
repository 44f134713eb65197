"""The grid search's folder: resuming where it was, another search's folder, and what KerasTuner keeps."""

import json
import random

import numpy as np
import pytest
from sklearn.exceptions import FitFailedWarning

from tests.support.searches import Fake, quiet, search_of, small

pytestmark = quiet


@pytest.mark.parametrize("interrupted", range(8))
def test_an_interrupted_search_goes_on_where_it_was(tmp_path, interrupted):
    grid = {"a": [1, 2], "b": ["x", "y"]}

    def run(directory, stop=None):
        calls = []

        def build_fn(a, b):
            calls.append((a, b))
            if len(calls) - 1 == stop:
                raise KeyboardInterrupt
            return Fake({"val_eer": [0.1 * a + (0.05 if b == "x" else 0.0) + random.random() / 100]})

        search = search_of(build_fn, grid, directory=directory)
        if stop is None:
            search.fit(*small())
        else:
            with pytest.raises(KeyboardInterrupt):
                search.fit(*small())
        return search, calls

    whole, all_calls = run(tmp_path / "whole")
    run(tmp_path / "broken", stop=interrupted)
    resumed, calls = run(tmp_path / "broken")
    begun = interrupted // 2 * 2  # two folds a trial, and the interrupted trial begins anew
    assert sorted(calls) == sorted(all_calls[begun:])
    for key in whole.cv_results_.keys() - {"mean_fit_time", "std_fit_time"}:
        np.testing.assert_array_equal(resumed.cv_results_[key], whole.cv_results_[key])


@pytest.mark.parametrize("begun", range(4))
def test_a_search_interrupted_between_trials_goes_on(tmp_path, monkeypatch, begun):
    calls = []

    def build_fn(dim):
        calls.append(dim)
        return Fake({"val_eer": [0.1 * dim]})

    def pre_create_trial(tuner):
        if len(calls) == 2 * begun:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("keras_tuner.GridSearch.pre_create_trial", pre_create_trial)
        search_of(build_fn, {"dim": [3, 2, 1]}, directory=tmp_path).fit(*small())
    search = search_of(build_fn, {"dim": [3, 2, 1]}, directory=tmp_path).fit(*small())
    assert calls == [3, 3, 2, 2, 1, 1, 1]
    np.testing.assert_allclose(search.cv_results_["mean_val_eer"], [0.3, 0.2, 0.1])


def test_a_resumed_search_tries_failed_trials_again(tmp_path):
    calls = []

    def build_fn(dim, broken=False):
        calls.append(dim)
        if dim == 1 and len(calls) < 4:
            raise OSError("out of memory")
        return Fake({"val_eer": [0.5 - dim / 10]})

    def run():
        calls_before = len(calls)
        search = search_of(build_fn, {"dim": [0, 1, 2]}, directory=tmp_path).fit(*small())
        return search, calls[calls_before:]

    with pytest.warns(FitFailedWarning):
        first, made = run()
    assert made == [0, 0, 1, 2, 2, 2]
    again, made = run()
    assert made == [1, 1, 2]
    assert again.failures_ == {}
    np.testing.assert_allclose(again.cv_results_["mean_val_eer"], [0.5, 0.4, 0.3])
    assert first.cv_results_["split0_val_eer"].tolist()[::2] == again.cv_results_["split0_val_eer"].tolist()[::2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"grid": {"dim": [1, 3]}}, r"param_grid {'dim': \['1', '2'\]}, not {'dim': \['1', '3'\]}"),
        ({"epochs": 3}, "epochs 10, not 3"),
        ({"cv": 3}, "cv 2, not 3"),
        ({"seed": 1}, "seed 0, not 1"),
        ({"objective": "val_auc"}, "objective val_eer, not val_auc"),
        ({"batch_size": 8}, "batch_size 12, not 8"),
        ({"x": np.arange(1.0, 25.0).reshape(24, 1)}, "data "),
        ({"labels": np.tile(np.arange(6), 4)}, "data "),
    ],
)
def test_a_folder_of_another_search_is_refused(tmp_path, options, message):
    data = {"x": np.arange(24.0).reshape(24, 1), "labels": np.repeat(np.arange(6), 4)}

    def run(grid=None, cv=2, x=data["x"], labels=data["labels"], **more):
        history = {"val_eer": [0.5], "val_auc": [0.5]}
        search = search_of(lambda dim: Fake(history), grid or {"dim": [1, 2]}, cv, directory=tmp_path, **more)
        return search.fit(x, labels)

    run()
    with pytest.raises(ValueError, match=f"`directory` holds another search, in .*siamese_grid_search': .*{message}"):
        run(**options)
    run()


def test_a_folder_of_something_else_and_one_that_cannot_be_written_are_refused(tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").touch()
    with pytest.raises(ValueError, match=r"`directory` holds another search.*cv None, not 2"):
        search_of(lambda: Fake({"val_eer": [0.5]}), {}, directory=tmp_path, project_name="mine").fit(*small())
    assert [one.name for one in (tmp_path / "mine").iterdir()] == ["thesis.tex"]
    with pytest.raises(ValueError, match="`directory` must be a path that can be written"):
        search_of(lambda: Fake({"val_eer": [0.5]}), {}, directory=tmp_path / "mine" / "thesis.tex").fit(*small())


@pytest.mark.parametrize("error", [None, KeyboardInterrupt, ValueError])
def test_without_a_directory_nothing_stays(tmp_path, monkeypatch, error):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    inside = []

    def build_fn():
        inside.append([one.name for one in tmp_path.iterdir()])
        return Fake({"val_eer": [0.5]} if error is None else error("stop"))

    search = search_of(build_fn, {})
    if error is None:
        search.fit(*small())
    else:
        with pytest.raises(KeyboardInterrupt if error is KeyboardInterrupt else RuntimeError):
            search.fit(*small())
    assert inside[0][0].startswith("keras_siamese_")
    assert list(tmp_path.iterdir()) == []


def test_keras_tuner_keeps_the_trials_in_its_own_form(tmp_path):
    search_of(lambda dim: Fake({"val_eer": [dim / 10]}), {"dim": [1, 2]}, directory=tmp_path).fit(*small())
    folder = tmp_path / "siamese_grid_search"
    trial = json.loads((folder / "trial_0001" / "trial.json").read_text())
    assert trial["status"] == "COMPLETED"
    assert trial["score"] == 0.2
    assert trial["hyperparameters"]["values"] == {"dim": "2"}
    folds = json.loads((folder / "trial_0001" / "folds.json").read_text())
    assert [fold["logs"]["val_eer"] for fold in folds] == [0.2, 0.2]


@pytest.mark.parametrize("content", ['[{"epoch": 1, "sec', "", None, "{}"])
def test_a_trial_whose_records_were_cut_short_is_measured_again(tmp_path, caplog, content):
    calls = []

    def build_fn(dim):
        calls.append(dim)
        return Fake({"val_eer": [0.5 - dim / 10 - len(calls) / 1000]})

    def run():
        return search_of(build_fn, {"dim": [0, 1, 2]}, directory=tmp_path, give_up=1.0).fit(*small())

    whole = run()
    file = next(tmp_path.glob("*/trial_0001/folds.json"))
    file.unlink() if content is None else file.write_text(content)
    calls.clear()
    again = run()
    assert calls == [1, 1, 2] and "Trial 0001 is measured again: its folds.json cannot be read" in caplog.text
    assert content is None or f"{str(file)!r} is not the JSON list that a search writes" in caplog.text
    values = whole.cv_results_["mean_val_eer"].tolist()
    assert again.cv_results_["mean_val_eer"].tolist() == [values[0], pytest.approx(0.3985), values[2]]


def test_settings_that_were_cut_short_are_named(tmp_path):
    search_of(lambda: Fake({"val_eer": [0.5]}), {}, directory=tmp_path).fit(*small())
    file = next(tmp_path.glob("*/search.json"))
    file.write_text(file.read_text()[:20])
    with pytest.raises(ValueError, match=r"search.json' is not the JSON dict that a search writes"):
        search_of(lambda: Fake({"val_eer": [0.5]}), {}, directory=tmp_path).fit(*small())
