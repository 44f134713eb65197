"""The cause `collapse` on facts written by hand."""

import pytest

from tests.support.facts_by_hand import answer, severity_and_strength


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"spread": 0.125, "spacing": 0.2}, ("warning", 2.0)),
        ({"spread": 0.05}, ("error", 5.0)),
        ({"spread": 0.0}, ("error", 10.0)),
        ({"spread": 0.125, "loss_from_collapsed_value": 0.019}, ("error", 2.0)),
        ({"spread": 0.125, "loss_from_collapsed_value": 0.02}, ("warning", 2.0)),
        ({"spread": 0.25}, None),
        ({"spacing": 0.25}, None),
        ({"eer": 0.099}, None),
        ({"train_eer": 0.099}, None),  # it has learned its identities all the same
        ({"train_eer": 0.1}, ("error", 10.0)),
        ({"weighted_positive_fraction": 1.0, "spread": 0.9, "spacing": 0.49, "train_eer": 0.01}, ("error", 10.0)),
        ({"weighted_positive_fraction": 1.0, "spread": 0.9, "spacing": 0.5}, None),
    ],
)
def test_strength_is_how_near_embeddings_are_to_one_point(changes, expected):
    assert severity_and_strength("collapse", **changes) == expected


@pytest.mark.parametrize(("size", "rate"), [(0.1, 0.01), (1.0, 0.001), (100.0, 1e-5), (1e9, 1e-5), (1e-9, 0.01)])
def test_its_repair_makes_large_steps_smaller(size, rate):
    repaired = answer("collapse", update_size_first=size).apply({"learning_rate": 0.01, "dim": 4})
    assert repaired["learning_rate"] == pytest.approx(rate) and repaired["dim"] == 4
    assert repaired["normalize"] and repaired["positive_fraction"] == 0.5 and repaired["negatives"] == "all"


def test_steps_that_are_too_large_explain_a_collapse_unless_the_hardest_pairs_do():
    assert answer("collapse", loss_mines=0, update_size_first=2.0).stage == "generalisation"
    assert answer("collapse", loss_mines=0, update_size_first=0.5).stage == "optimisation"
    assert answer("collapse", loss_mines=1, update_size_first=2.0).stage == "optimisation"


def test_an_encoder_that_has_hardly_moved_has_not_collapsed():
    tiny = {f"update_size_{name}": 0.005 for name in ("first", "last", "largest")}
    assert severity_and_strength("collapse", **tiny) is None
    assert severity_and_strength("collapse", **{**tiny, "update_size_largest": 0.02}) == ("error", 10.0)
    assert severity_and_strength("collapse", **{**tiny, "update_size_largest": 0.0}) == ("error", 10.0)  # no gradient
    unwatched = dict.fromkeys(tiny)
    assert severity_and_strength("collapse", **unwatched, biases_moved=0.1) is None
    assert severity_and_strength("collapse", **unwatched, biases_moved=0.3) == ("error", 10.0)
    assert answer("collapse", **unwatched, loss_mines=0, weights_grown=20.0).stage == "generalisation"


def test_without_impostors_it_is_a_matter_of_the_data():
    finding = answer("collapse", weighted_positive_fraction=1.0)
    assert finding.stage == "data" and finding.apply({"dim": 4}) == {"dim": 4, "positive_fraction": 0.5}
    assert "no impostor pairs" in finding.summary and answer("collapse").stage == "optimisation"


def test_a_loss_that_hardly_repels_is_a_matter_of_the_objective():
    weak = {"weighted_positive_fraction": 0.98, "positive_fraction": 0.5, "spread": 0.9, "spacing": 0.3}
    found = answer("collapse", **weak)
    assert (found.severity, found.stage) == ("error", "objective") and found.apply({}) == {"negative_weight": 1.0}
    assert "only 2.0% of the weight is on impostor pairs" in found.summary
    assert severity_and_strength("collapse", **{**weak, "positive_fraction": 0.98}) is None


def test_the_logged_loss_tells_that_there_were_no_impostors():
    told = {"weighted_positive_fraction": None, "genuine_loss": 0.001, "impostor_loss": 1.0, "spread": 0.9}
    assert answer("collapse", **told, spacing=0.3, implied_fraction=1.0).stage == "data"
    assert severity_and_strength("collapse", **told, spacing=0.3, implied_fraction=0.99) is None
