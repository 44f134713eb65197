"""Files of any length: exact while all pairs are held, and within the stated errors where they are counted in bins."""

import numpy as np
import pytest

from keras_siamese import verification
from keras_siamese.verification import counted, tables
from keras_siamese.verification.counted import CountedScores, evaluate_file


@pytest.fixture
def path(tmp_path, rng):
    """A file of 3,000 pairs with identities."""
    left, right = rng.integers(0, 60, (2, 3000))
    right = np.where(rng.random(3000) < 0.3, left, right)
    scores = np.round(rng.normal(size=3000) + 2 * (left == right), 6)
    lines = [f"{score},{int(a == b)},p{a},p{b}" for score, a, b in zip(scores, left, right, strict=True)]
    (tmp_path / "scores.csv").write_text("\n".join(["score,same,left,right", *lines]), encoding="utf-8")
    return tmp_path / "scores.csv"


@pytest.fixture
def short(monkeypatch):
    """No file fits into memory, and a block holds some hundred lines."""
    monkeypatch.setattr(counted, "LIMIT", 1000)
    monkeypatch.setattr(tables, "BLOCK", 4000)


def test_few_pairs_are_evaluated_as_they_are(path):
    table = verification.read_scores(path)
    expected = verification.evaluate(table.same, table.scores, far=[0.1], left=table.left, right=table.right, seed=3)
    assert str(evaluate_file(path, far=[0.1], seed=3)) == str(expected)


def test_many_pairs_are_counted_within_the_errors(path, short):
    table = verification.read_scores(path)
    exact = verification.evaluate(table.same, table.scores, far=[0.1], threshold=1.0)
    found = evaluate_file(path, far=[0.1], threshold=1.0)
    assert isinstance(found, CountedScores)
    histogram = found.histogram
    assert (histogram.genuines, histogram.impostors) == (exact.genuines, exact.impostors)
    assert abs(histogram.eer() - exact.eer) <= histogram.eer_error_bound()
    assert abs(histogram.auc() - exact.auc) <= histogram.auc_error_bound()
    assert 0 <= exact.tar[0].tar - histogram.tar_at_far(0.1) <= histogram.tar_error_bound(0.1)
    assert found.at_threshold() == {"accuracy": exact.accuracy, "fmr": exact.fmr, "fnmr": exact.fnmr}
    plain = found.to_dict()
    assert plain["fmr"] == exact.fmr and plain["tar"][0]["far"] == 0.1
    assert "accuracy" in str(found) and "More than 1,000 pairs are counted in bins" in str(found)


def test_distances_give_the_same_figures(path, short, tmp_path):
    table = verification.read_scores(path)
    lines = [f"{-score},{int(same)}" for score, same in zip(table.scores, table.same, strict=True)]
    (tmp_path / "distances.csv").write_text("\n".join(["score,same", *lines]), encoding="utf-8")
    settings = {"far": [0.1], "threshold": -1.0, "distance": True}
    found = str(evaluate_file(tmp_path / "distances.csv", **settings))
    said = "The score is −distance: a pair is accepted if its distance is at most -1.\n"
    assert said in found and found.replace(said, "") == str(evaluate_file(path, far=[0.1], threshold=1.0))


def test_equal_scores_have_bins(tmp_path, short):
    (tmp_path / "scores.csv").write_text("score,same\n" + "2,1\n2,0\n" * 1000, encoding="utf-8")
    assert evaluate_file(tmp_path / "scores.csv").histogram.auc() == 0.5


def test_wrong_lines_are_named_before_anything_is_counted(path, short):
    with open(path, "a", encoding="utf-8") as file:
        file.write("\nx,1,a,b\n")
    with pytest.raises(ValueError, match="1 of its lines do not:\n  line 3002: x,1,a,b"):
        evaluate_file(path)


@pytest.mark.parametrize("limit", [10, 10**6])
def test_progress_is_shown_on_request(path, monkeypatch, capsys, limit):
    monkeypatch.setattr(counted, "LIMIT", limit)
    evaluate_file(path)
    assert capsys.readouterr().out == ""
    evaluate_file(path, progress=True)
    assert "1/1" in capsys.readouterr().out
