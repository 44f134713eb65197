"""The model card: every number in it was measured, what was not measured is named, and the head is read as YAML."""

import numpy as np
import pytest

from keras_siamese.verification import compare_groups
from keras_siamese.verifier import Verifier
from tests.support.verifiers import clusters, wrapper


@pytest.fixture(scope="module")
def verifier():
    return Verifier.calibrate(wrapper(), *clusters(30, 6, seed=1), far=0.05)


@pytest.fixture(scope="module")
def report(verifier):
    return verifier.evaluate(*clusters(25, 6, seed=2))


def head_of(card):
    yaml = pytest.importorskip("yaml")
    _, head, body = card.split("---\n", 2)
    return yaml.safe_load(head), body


def test_the_head_is_that_of_the_hub(verifier, report):
    card = verifier.card(report, name='A "good": one', dataset="people: 25", license="apache-2.0")
    head, body = head_of(card)
    assert head["library_name"] == "keras" and head["license"] == "apache-2.0"
    (model,) = head["model-index"]
    (result,) = model["results"]
    assert model["name"] == 'A "good": one' and result["dataset"] == {"type": "people: 25", "name": "people: 25"}
    assert {metric["type"]: metric["value"] for metric in result["metrics"]} == pytest.approx(
        {name: getattr(report, name) for name in ("eer", "auc", "fmr", "fnmr", "balanced_accuracy")}, rel=1e-5
    )
    assert body.startswith('\n# A "good": one\n') and str(report) in body


def test_the_numbers_are_those_of_the_calibration(verifier):
    card = verifier.card()
    found = verifier.evidence
    assert f"Chosen by the rule `far=0.05` on {found['genuine_pairs']} genuine" in card.replace(",", "")
    low, high = found["intervals"]["eer"]
    assert f"| EER | {found['eer']:.4f} | {low:.4f} to {high:.4f} |" in card
    assert f"At threshold {verifier.threshold:.6g}: of 100 genuine pairs" in card
    assert f"accepted if its distance is at most {-verifier.threshold:.6g}." in card
    assert "model-index" not in card


def test_what_was_not_measured_is_named(verifier, report):
    bare = verifier.card()
    assert "was not evaluated" in bare and "Error rates by group were not measured" in bare and "optimistic" in bare
    same, scores = (report.pairs[name] for name in ("same", "scores"))
    groups = compare_groups(same, scores - 3.0 * (np.arange(len(same)) % 2), np.arange(len(same)) % 2, threshold=-6.0)
    full = verifier.card(report, groups)
    assert "not evaluated" not in full and "were not measured" not in full and str(groups) in full
    assert 'The FNMR differs between groups: it is higher for "1" than for "0"' in full
    assert "The TAR at a FMR of 0.001 is" in full
    unknown = Verifier(verifier.siamese, -1.0).card()
    assert "How the threshold was chosen is not known" in unknown


def test_a_folder_for_the_hub(verifier, report, tmp_path):
    verifier.save_pretrained(tmp_path / "new" / "repo", report, dataset="people")
    assert sorted(path.name for path in (tmp_path / "new" / "repo").iterdir()) == ["README.md", "verifier.keras"]
    assert (tmp_path / "new" / "repo" / "README.md").read_text(encoding="utf-8") == verifier.card(
        report, dataset="people"
    )
    again = Verifier.load(tmp_path / "new" / "repo")
    x, _ = clusters(4, 2, seed=3)
    np.testing.assert_array_equal(again.score(x[:4], x[4:]), verifier.score(x[:4], x[4:]))
    with pytest.raises(ValueError, match="`path` must be a saved Verifier"):
        Verifier.load(tmp_path)


def test_mistakes_are_named(verifier, report):
    with pytest.raises(TypeError, match="`report` must be a VerificationReport; got dict"):
        verifier.card({})
    with pytest.raises(TypeError, match="`groups` must be a GroupReport; got VerificationReport"):
        verifier.card(report, report)
