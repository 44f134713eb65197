"""The cause `unshared_weights` on facts written by hand."""

from tests.support.facts_by_hand import answer, severity_and_strength


def test_two_encoders_are_a_fault_whatever_the_figures_say():
    assert severity_and_strength("unshared_weights") == ("error", 10.0)
    assert severity_and_strength("unshared_weights", eer=0.0, verifies_badly=0) == ("error", 10.0)
    assert severity_and_strength("unshared_weights", unshared=0.0) is None


def test_its_repair_is_one_encoder():
    finding = answer("unshared_weights")
    assert finding.apply({"shared": False}) == {"shared": True} and finding.evidence["unshared"].value == 1.0
