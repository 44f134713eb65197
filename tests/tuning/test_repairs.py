"""What a diagnosis would change in the hyperparameters of a trial, and how folds agree on it."""

from types import SimpleNamespace

import numpy as np
import pytest

from keras_siamese._files import SideWork, SideWorkWarning
from keras_siamese.tuning import repairs
from tests.support.facts_by_hand import answer


def changes(cause, values, margin=None, **facts):
    """What the finding of `cause` changes in `values`."""
    return repairs.changes_of(answer(cause, **facts).apply, values, margin)


def found(cause, severity="error", **changed):
    return {"cause": cause, "severity": severity, "changes": changed}


def finding(cause, severity, explained_by=None, **changed):
    """A finding as a diagnosis has it."""
    options = {"explained_by": explained_by, "apply": lambda recipe: {**recipe, **changed}}
    return SimpleNamespace(cause=cause, severity=severity, **options)


def diagnosis_of(*findings, eer=()):
    return SimpleNamespace(findings=findings, observed=SimpleNamespace(history={"eer": list(eer)}))


def test_repairs_of_causes_change_the_hyperparameters_of_their_names():
    values = {"learning_rate": 1e-6, "margin": 0.01, "positive_fraction": 0.01, "depth": 3}
    slow = {"update_size_largest": 1e-4}
    assert changes("learning_rate", values, **slow) == {"learning_rate": pytest.approx(1e-3)}
    assert changes("margin", values) == {"margin": 1.0}
    assert changes("pair_imbalance", values) == {"positive_fraction": 0.5}
    assert changes("pair_imbalance", {"margin": 1.0}) == {}, "the space has no such field"


def test_the_encoder_is_normalized_where_the_space_can_do_so_and_otherwise_the_margin_follows_its_scale():
    facts = {"untrained_distance": 3.0, "reach": None}
    assert changes("margin", {"margin": 0.01, "normalize": False}, **facts) == {"margin": 1.0, "normalize": True}
    assert changes("margin", {"margin": 0.01}, **facts) == {"margin": 3.0}


def test_a_margin_that_is_a_share_is_repaired_as_a_share():
    found = changes("margin", {"relative_margin": 0.01}, margin=0.02)
    assert found == {"relative_margin": pytest.approx(0.5)}


def test_mining_and_augmentation_have_names_of_their_own():
    def repair(recipe):
        return {**recipe, "negatives": "all", "augment": True}

    assert repairs.changes_of(repair, {"mining": "hard", "augmentation": 0.0}) == {
        "mining": "none",
        "augmentation": 1.0,
    }
    assert repairs.changes_of(repair, {"mining": "none", "augmentation": 0.5}) == {}
    assert repairs.changes_of(None, {"mining": "hard"}) == {}


def test_numbers_are_those_of_json():
    found = repairs.changes_of(lambda recipe: {**recipe, "margin": np.float64(0.5)}, {"margin": 1.0})
    assert type(found["margin"]) is float


def test_findings_of_a_diagnosis_leave_out_what_is_explained():
    diagnosis = diagnosis_of(
        finding("collapse", "error", learning_rate=1e-3),
        finding("margin", "info", "collapse", margin=1.0),
        finding("mining", "info", mining="none"),
    )
    both = {"learning_rate": 0.1, "margin": 0.1}
    assert repairs.findings_of(diagnosis, both) == [found("collapse", learning_rate=1e-3), found("mining", "info")]
    only = repairs.findings_of(diagnosis, {"margin": 0.1})
    assert only == [found("collapse"), found("margin", "warning", margin=1.0), found("mining", "info")]
    assert repairs.findings_of(None, both) == []


@pytest.mark.parametrize(
    ("eer", "expected"),
    [
        ([0.5, 0.4, 0.3, 0.2, 0.1], [found("unfinished", "hint", learning_rate=pytest.approx(0.03))]),
        ([0.3, 0.1, 0.2, 0.2, 0.2], [found("unsettled", "hint", learning_rate=pytest.approx(0.01 / 3))]),
        ([0.5, 0.4, 0.1, 0.2, 0.3], []),
        ([0.5, 0.4, 0.3, 0.1], []),
        ([0.5, float("nan"), 0.3, 0.2, 0.1], []),
        ([], []),
    ],
)
def test_the_curve_hints_at_another_learning_rate(eer, expected):
    assert repairs.findings_of(diagnosis_of(eer=eer), {"learning_rate": 0.01}) == expected
    assert repairs.findings_of(diagnosis_of(eer=eer), {"margin": 0.01}) == []


def test_findings_are_kept_fold_by_fold_and_begin_anew_with_the_first(tmp_path):
    assert repairs.read(tmp_path) == []
    repairs.keep(tmp_path, 0, [found("margin", margin=1.0)])
    repairs.keep(tmp_path, 1, [])
    assert repairs.read(tmp_path) == [[found("margin", margin=1.0)], []]
    repairs.keep(tmp_path, 0, [])
    assert repairs.read(tmp_path) == [[]]


def test_folds_agree_on_what_at_least_half_of_them_found():
    folds = [
        [found("mining", "warning", mining="none"), found("margin", margin=1.0), found("collapse", margin=9.0)],
        [found("margin", "warning", margin=4.0), found("mining", "warning", mining="none")],
        [found("margin", margin=2.0), found("mining", "warning", mining="hard")],
    ]
    assert repairs.agreed(folds) == [found("margin", margin=2.0), found("mining", "warning", mining="none")]
    assert repairs.agreed([[found("collapse", margin=9.0)], []]) == [found("collapse", margin=9.0)]
    assert repairs.agreed([]) == []


@pytest.mark.parametrize("epochs", [2, 9])
def test_an_early_look_is_for_errors_at_first_and_for_warnings_after_a_third_of_the_epochs(epochs):
    looked = []
    monitor = SimpleNamespace(diagnose=lambda: "diagnosis", side=SideWork())
    look = repairs.EarlyLook(monitor, lambda *given: looked.append(given) or len(looked) == 2, epochs)
    look.set_model(SimpleNamespace(stop_training=False))
    look.on_epoch_end(0)
    assert not look.model.stop_training
    look.on_epoch_end(1)
    assert look.model.stop_training
    for epoch in range(2, 9):
        look.on_epoch_end(epoch)
    late = [("diagnosis", ("error", "warning"))] if epochs == 9 else []
    assert looked == [("diagnosis", ("error",))] * 2 + late


def test_an_early_look_that_fails_does_not_end_the_fit():
    monitor = SimpleNamespace(diagnose=lambda: 1 / 0, side=SideWork())
    with pytest.warns(SideWorkWarning, match="The early look at the run failed .*ZeroDivisionError"):
        repairs.EarlyLook(monitor, bool, 9).on_epoch_end(0)
