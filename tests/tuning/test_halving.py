"""Asynchronous successive halving: which fits end early, and that a search's later trials do."""

import json
from pathlib import Path

import keras_tuner
import numpy as np
import pytest

from keras_siamese.tuning import DiagnosisOracle, SearchSpace, SiameseHyperModel, halving, objective
from tests.support.searches import digits, encoder, quiet

pytestmark = quiet


def behind_by_sorting(curve, others, sign):
    """The same, by sorting: a run goes on if it is among the first third of all, rounded down, at least one."""
    at = len(curve)
    everyone = [curve, *(other[:at] for other in others if len(other) >= at)]
    bests = [max((sign * one for one in values if one is not None), default=-np.inf) for values in everyone]
    places = sorted(range(len(bests)), key=lambda number: (-bests[number], number != 0))
    return len(everyone) > 1 and places.index(0) >= max(1, len(everyone) // 3)


@pytest.mark.parametrize("sign", [1, -1])
def test_those_behind_are_those_not_among_the_best_third(sign):
    rng = np.random.default_rng(0)

    def drawn(length):
        return [None if rng.random() < 0.1 else float(value) for value in rng.integers(0, 6, length)]

    for _ in range(300):
        others = [drawn(rng.integers(1, 9)) for _ in range(rng.integers(0, 9))]
        curve = drawn(3)
        assert halving.is_behind(curve, others, sign) == behind_by_sorting(curve, others, sign)


def test_without_rivals_at_that_epoch_a_fit_goes_on():
    assert not halving.is_behind([0.5, 0.5, 0.5], [], -1)
    assert not halving.is_behind([0.5, 0.5, 0.5], [[0.1, 0.1]], -1)
    assert halving.is_behind([0.5, 0.5, 0.5], [[0.6, 0.6, 0.4, 0.3]], -1)
    assert halving.is_behind([float("nan")] * 3, [[0.6, 0.6, 0.4, 0.3]], -1)


def test_records_of_older_versions_and_of_other_folds_are_left_out(tmp_path):
    for number, records in enumerate([[{"curve": [0.5, None]}], [{"epoch": 1}], [{"curve": [0.4]}, {"curve": [0.3]}]]):
        folder = tmp_path / f"trial_{number}"
        folder.mkdir()
        (folder / "folds.json").write_text(json.dumps(records))
    assert halving.curves_of(tmp_path, 0) == [[0.5, None], [0.4]]
    assert halving.curves_of(tmp_path, 1) == [[0.3]]


@pytest.mark.parametrize(("mode", "ended"), [("stop", True), ("warn", False)])
def test_a_trial_that_falls_behind_ends_after_a_third_of_its_epochs(tmp_path, mode, ended, monkeypatch):
    """Neither faults nor flags are found in these trials, so that only halving can end them."""
    monkeypatch.setattr("keras_siamese.tuning.repairs.findings_of", lambda *given, **named: [])
    monkeypatch.setattr("keras_siamese.diagnosis.recorder.RunRecorder.flagged", lambda *given, **named: [])
    x, labels = digits()
    space = SearchSpace(margin=1.0, embedding_dim=[8, 1], learning_rate=1e-2, batch_size=12)
    oracle = DiagnosisOracle(objective("val_eer"), max_trials=2, seed=next(seeds_that_begin_with(8, space)))
    tuner = keras_tuner.Tuner(oracle, SiameseHyperModel(encoder, space), directory=tmp_path)
    held_out = labels >= 7
    options = {"epochs": 6, "on_divergence": mode, "verbose": 0}
    tuner.search(x[~held_out], labels[~held_out], validation_data=(x[held_out], labels[held_out]), **options)
    curves = [json.loads(Path(tuner.get_trial_dir(name), "folds.json").read_text())[0]["curve"] for name in ("0", "1")]
    assert len(curves[0]) == 6
    assert len(curves[1]) == (2 if ended else 6)


def seeds_that_begin_with(size, space):
    for seed in range(20):
        oracle = DiagnosisOracle(objective("val_eer"), max_trials=1, seed=seed)
        space.declare(oracle.hyperparameters)
        if oracle.populate_space("0")["values"]["embedding_dim"] == size:
            yield seed
