"""Tests of `repair`: a broken program is trained until it verifies, and its model has the best weights."""

import importlib
from dataclasses import replace

import keras
import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.causes import Finding
from keras_siamese.diagnosis.causes.base import change
from keras_siamese.diagnosis.experiments.program import Outcome
from keras_siamese.diagnosis.experiments.repair import helps, ways_of
from keras_siamese.scoring import ScoredTrials, Trials
from tests.support import small_programs


def siamese(margin=1.0, rate=3e-3):
    model = ks.SiameseWrapper(small_programs.encoder())
    model.compile(keras.optimizers.Adam(rate), loss=ks.losses.ContrastiveLoss(margin=margin))
    x, _ = small_programs.identities()
    model((x[:2], x[:2]))
    return model


def pairs(positive_fraction=0.5):
    x, labels = small_programs.identities()
    return ks.data.PairSequence(
        x, labels, batch_size=30, pairs_per_epoch=300, positive_fraction=positive_fraction, seed=0
    )


VALID = small_programs.identities(20, seed=1)


@pytest.fixture(scope="module")
def repaired():
    return ks.repair(lambda: siamese(rate=1e-7), pairs(), VALID, epochs=5, target_eer=0.2, progress=False)


def test_a_small_rate_is_raised(repaired):
    first, second = repaired.kept[:2]
    assert repaired.is_repaired and second.cause == "learning_rate" and set(second.options) == {"learning_rate"}
    assert second.eer < first.eer - 0.02 and repaired.diagnosis.observed.eer.estimate <= second.eer


def test_the_model_has_the_weights_that_were_measured(repaired):
    found = ks.diagnose(repaired.model, validation=VALID)
    assert found.observed.eer.estimate == pytest.approx(repaired.kept[-1].eer, abs=0.03)
    rate = float(keras.ops.convert_to_numpy(repaired.model.optimizer.learning_rate))
    assert rate == pytest.approx(repaired.kept[-1].options["learning_rate"])


def test_the_text_has_what_was_tried_and_what_a_person_would_write(repaired):
    text = str(repaired)
    assert "as it was given" in text and "learning_rate=0.01" in text
    assert "learning_rate = 0.01  # the best of short runs\n" in repaired.code and repaired.code in text
    assert (
        len(repaired.kept) == 3 and repaired.code.count("# In one epoch") == 1
    )  # at the usual rate, and at a better one
    compile(repaired.code, "advice", "exec")


def test_a_replaced_comparison_gives_another_model_over_the_same_encoder():
    model = siamese(margin=0.005)
    found = ks.repair(model, pairs(), VALID, epochs=10, budget=25, progress=False)
    assert {one.cause for one in found.kept} == {None, "margin"}
    assert found.model is not model and {id(one) for one in model.variables} <= {id(v) for v in found.model.variables}
    assert isinstance(found.model.loss, ks.losses.ContrastiveLoss) and found.model.loss.margin > 0.1


def test_a_healthy_program_is_trained_once():
    model = siamese(rate=0.01)
    found = ks.repair(model, pairs(), VALID, epochs=8, progress=False)
    assert len(found.attempts) == 1 and found.model is model and not found.is_repaired and found.code == ""


def test_the_budget_and_the_target_end_the_search():
    found = ks.repair(siamese(rate=1e-7), pairs(), VALID, budget=5, epochs=5, progress=False)
    assert len(found.attempts) == 1 and found.why == "The budget is spent."
    found = ks.repair(siamese(rate=1e-7), pairs(), VALID, epochs=2, target_eer=0.4, progress=False)
    assert len(found.attempts) == 1 and "target" in found.why


@pytest.mark.deep
@pytest.mark.each_backend
def test_a_plain_program_on_arrays_is_repaired():
    _, _, (x, y), valid = small_programs.plain(epochs=0)
    few = np.flatnonzero(y == 0)[:5]
    rows = np.sort(np.concatenate([np.flatnonzero(y == 1), few]))
    model = small_programs.plain(epochs=0)[0]
    found = ks.repair(model, ([side[rows] for side in x], y[rows]), valid, epochs=8, progress=False)
    assert found.is_repaired and found.kept[1].cause == "pair_imbalance", str(found)


def test_wrong_arguments_are_named():
    with pytest.raises(ValueError, match="build_or_model.*compiled"):
        ks.repair(ks.SiameseWrapper(small_programs.encoder()), pairs(), VALID)
    with pytest.raises(ValueError, match="`train` must be training data"):
        ks.repair(siamese(), None, VALID)
    with pytest.raises(ValueError, match="budget"):
        ks.repair(siamese(), pairs(), VALID, budget=2, epochs=5)


def test_what_only_a_test_has_shown_is_repaired_and_explained(monkeypatch):
    """A run that verifies badly and has no finding: its suspects alone are left."""
    module = importlib.import_module("keras_siamese.diagnosis.experiments.repair")
    shown = Finding("learning_rate", "warning", None, "It is too small.", {}, "rate = 1", change(learning_rate=3e-3))
    judged = module.diagnosis_of
    monkeypatch.setattr(module, "diagnosis_of", lambda observed: replace(judged(observed), findings=()))
    monkeypatch.setattr(module, "wants_explaining", lambda facts, findings: True)
    monkeypatch.setattr(module, "tested", lambda diagnosis, **options: replace(diagnosis, findings=(shown,)))
    found = ks.repair(siamese(rate=1e-7), pairs(), VALID, epochs=5, progress=False)
    assert {one.cause for one in found.kept} == {None, "learning_rate"}
    assert found.code.startswith("# It is too small.\nrate = 1\n") and found.why == "No other repair is left to try."
    assert found.kept[0].diagnosis.findings == (shown,)  # what was tested is kept


def test_training_that_ends_with_nan_is_no_gain():
    def explode(y_true, y_pred):
        return keras.ops.sqrt(y_pred - y_pred) * y_true + keras.ops.log(y_pred - 1e9)

    model = siamese()
    model.compile(keras.optimizers.Adam(1e-3), loss=explode)
    found = ks.repair(model, pairs(), VALID, epochs=2, budget=2, progress=False)
    assert found.attempts[0].eer == pytest.approx(0.5)


def test_a_repair_that_cannot_be_trained_is_passed_over(monkeypatch):
    module = importlib.import_module("keras_siamese.diagnosis.experiments.repair")
    train, failed = module.Search.train, []

    def train_once(search, program):
        if search.attempts:
            failed.append(program)
            raise RuntimeError("element 0 of tensors does not require grad")
        return train(search, program)

    monkeypatch.setattr(module.Search, "train", train_once)
    found = ks.repair(siamese(rate=1e-7), pairs(), VALID, epochs=2, progress=False)
    assert failed and len(found.attempts) == 1 and found.why == "No other repair is left to try."


def test_the_ways_to_make_a_repair():
    assert ways_of({"margin": 1.0}) == ({"margin": 1.0},)
    both = {"distance": "cosine", "verify_distance": "cosine", "normalize": True}
    assert ways_of(both) == ({"verify_distance": "cosine"}, both)  # what changes least is first
    assert ways_of({"trainable": True}) == ({"trainable": True}, {"head": "logistic"})
    logistic, contrastive = {"head": "logistic"}, {"loss": "contrastive", "margin": 1.0, "normalize": True}
    assert ways_of(logistic) == (logistic, contrastive) and ways_of({"loss": "contrastive"})[1] == logistic


def outcome_of(errors, pairs=400):
    """The `Outcome` of a program of which `errors` pairs of each kind score like those of the other kind."""
    same = np.arange(pairs) % 2 == 0
    scores = np.where(same, 1.0, 0.0)
    for kind in (same, ~same):
        scores[np.flatnonzero(kind)[:errors]] = 1 - scores[np.flatnonzero(kind)[:errors]]
    items = np.zeros((2 * pairs, 1), "float32")
    trials = Trials.from_pairs(items[:pairs], items[pairs:], same.astype(int))
    return Outcome([], ScoredTrials(trials, items, scores.astype("float32")))


def test_a_repair_helps_if_the_eer_is_clearly_lower_or_lower_without_the_cause():
    class Diagnosed:
        def __init__(self, *findings):
            self.findings = findings

    margin = Finding("margin", "error", None, "", {}, "", change(margin=1.0))
    information = replace(margin, severity="info")
    much, some, less, more = map(outcome_of, (100, 42, 40, 44))
    assert helps(margin, much, less, Diagnosed(margin))  # clearly lower, although the cause is found again
    assert helps(margin, some, less, Diagnosed()) and helps(margin, some, less, Diagnosed(information))
    assert not helps(margin, some, less, Diagnosed(margin)) and not helps(margin, some, more, Diagnosed())
    assert not helps(information, some, less, Diagnosed())  # what did not alarm must be clearly better


def test_what_has_alarmed_before_is_tried_when_nothing_alarms_any_more(monkeypatch):
    """Two faults: after the repair of the rate the run looks healthy, and the margin is still tried."""
    module = importlib.import_module("keras_siamese.diagnosis.experiments.repair")
    rate = Finding("learning_rate", "error", None, "It is too small.", {}, "rate = 1", change(learning_rate=3e-3))
    margin = Finding("margin", "error", None, "It is too large.", {}, "margin = 1", change(margin=1.0))
    weak = Finding("weak_features", "info", None, "A linear model does better.", {}, "", change(width=128))
    found = iter([(rate, margin, weak), *9 * [(weak,)]])
    judged = module.diagnosis_of
    monkeypatch.setattr(module, "diagnosis_of", lambda observed: replace(judged(observed), findings=next(found)))
    monkeypatch.setattr(module, "tested", lambda diagnosis, **options: diagnosis)
    monkeypatch.setattr(module, "is_sound", lambda diagnosis: len(diagnosis.findings) == 1)
    repaired = ks.repair(siamese(margin=30.0, rate=1e-7), pairs(), VALID, epochs=3, budget=60, progress=False)
    causes = list(dict.fromkeys(one.cause for one in repaired.attempts))
    assert causes == [None, "learning_rate", "margin", "weak_features"]
    assert repaired.why == f"{module.SOUND} Read in the diagnosis what was found all the same: weak_features."
