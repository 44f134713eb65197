"""The order of findings: by severity and strength, and a cause of an earlier stage explains one of a later stage."""

import graphlib

import pytest

from keras_siamese.diagnosis import causes
from keras_siamese.diagnosis.causes import Finding
from keras_siamese.diagnosis.ranking import GIVEN, STAGES, WITHIN, explains, rank

OF = {cause.name: cause for cause in causes.CAUSES}


def finding(cause, severity="error", strength=2.0, stage=None):
    of = OF[cause]
    return Finding(
        cause, severity, 3, "", {}, "", None, strength, stage=stage or of.stage, explains_flag=of.explains_flag
    )


def ranked(*found):
    return [(one.cause, one.severity, one.explained_by) for one in rank(found)]


def test_every_cause_belongs_to_a_stage_and_they_are_examined_in_that_order():
    places = [STAGES.index(cause.stage) for cause in causes.CAUSES]
    assert places == sorted(places) and set(places) == set(range(len(STAGES)))
    for name, explained in WITHIN.items():
        assert all(OF[one].stage == OF[name].stage for one in explained)


def test_an_earlier_stage_explains_a_later_one_whatever_its_strength():
    found = ranked(finding("weak_features", "error", 9.0), finding("margin", "warning", 1.0))
    assert found == [("margin", "warning", None), ("weak_features", "info", "margin")]
    found = ranked(finding("threshold", "warning"), finding("collapse"))
    assert found == [("collapse", "error", None), ("threshold", "info", "collapse")]


def test_large_steps_explain_the_collapse_that_they_cause():
    found = ranked(finding("collapse", strength=10.0, stage="generalisation"), finding("learning_rate"))
    assert found == [("learning_rate", "error", None), ("collapse", "info", "learning_rate")]


def test_a_metric_that_contradicts_the_scores_is_explained_by_their_meaning_only():
    contradicted = finding("threshold", "error", 10.0)
    assert ranked(finding("margin", strength=1.1), contradicted)[0] == ("threshold", "error", None)
    for cause in ("unreachable_output", "head_sign", "inverted_labels"):
        assert ranked(finding(cause), contradicted)[1] == ("threshold", "info", cause)


@pytest.mark.parametrize("stage", GIVEN)
def test_what_a_run_is_given_explains_training_and_nothing_else_that_is_given(stage):
    givens = [cause.name for cause in causes.CAUSES if cause.stage == stage and cause.explains_flag]
    others = [cause.name for cause in causes.CAUSES if cause.stage in GIVEN and cause.stage != stage]
    for name in givens:
        assert (name, "error", None) in ranked(finding(name), *map(finding, others))
        assert all(by != name for _, _, by in ranked(finding(name), *map(finding, others)))
        assert ranked(finding(name), finding("learning_rate"))[1] == ("learning_rate", "info", name)


def test_causes_about_figures_alone_explain_nothing():
    assert all(by is None for _, _, by in ranked(finding("leakage", strength=10.0), finding("memorising")))
    assert ranked(finding("memorising"), finding("threshold"))[1][2] is None


def test_within_a_stage_only_the_stated_causes_explain_others():
    assert ranked(finding("learning_rate", strength=9.0), finding("collapse"))[0] == ("collapse", "error", None)
    assert ranked(finding("margin"), finding("wrong_distance"))[1] == ("wrong_distance", "error", None)


def test_most_severe_comes_first_and_then_strongest():
    found = ranked(
        finding("margin", "warning", 9.0), finding("wrong_distance", strength=2.0), finding("margin", strength=3.0)
    )
    assert [(cause, severity) for cause, severity, _ in found] == [
        ("margin", "error"), ("wrong_distance", "error"), ("margin", "warning")
    ]  # fmt: skip


def test_no_causes_explain_each_other_in_a_circle():
    """Otherwise none of them would be left to be named."""
    found = [finding(cause.name) for cause in causes.CAUSES]
    by = {one.cause: [other.cause for other in found if explains(other, one)] for one in found}
    assert list(graphlib.TopologicalSorter(by).static_order())
    signs = [finding("loss_mismatch"), finding("inverted_labels"), finding("label_noise")]
    assert ranked(*signs)[0] == ("loss_mismatch", "error", None)


def test_a_finding_may_come_from_an_earlier_stage_than_its_cause_usually_does():
    """A collapse without any impostor pair is a fault of the data."""
    assert ranked(finding("collapse", stage="data"), finding("margin"))[1] == ("margin", "info", "collapse")
    assert ranked(finding("collapse"), finding("margin"))[1] == ("collapse", "info", "margin")
