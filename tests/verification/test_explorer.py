"""The part of a page that moves the threshold: its counts are those of a loop, and its values fit into JSON."""

import json
import math

import numpy as np
import pytest

from keras_siamese.verification import evaluate
from keras_siamese.verification.evidence import in_words
from keras_siamese.verification.explorer import BINS, GROUPS, STEPS, Example, explore, grouped, spread


@pytest.fixture
def pairs(rng):
    same = np.arange(3000) % 3 == 0
    return same, np.round(rng.normal(size=3000) + 2 * same, 2)


@pytest.mark.parametrize("threshold", [0.5, 1.234, -50.0, math.inf])
def test_each_step_has_the_counts_of_a_loop(pairs, threshold):
    same, scores = pairs
    found = explore(same, scores, threshold)
    data = json.loads(json.dumps(found["data"], allow_nan=False))
    assert data["thresholds"] == sorted(data["thresholds"]) and len(data["thresholds"]) <= STEPS + 1
    assert data["thresholds"][data["start"]] == min(threshold, np.finfo(float).max)
    for value, genuine, impostor in zip(data["thresholds"], data["genuine"], data["impostor"], strict=True):
        assert (genuine, impostor) == (np.sum(scores[same] >= value), np.sum(scores[~same] >= value))
    assert (data["genuines"], data["impostors"]) == (1000, 2000)
    accepted = scores >= threshold
    assert found["sentence"] == in_words(threshold, accepted[~same].mean(), 1 - accepted[same].mean())


def test_small_error_rates_can_be_chosen(rng):
    same = np.arange(200_000) < 1000
    data = explore(same, rng.normal(size=200_000) + 4 * same, 0.0)["data"]
    rates = np.array(data["impostor"]) / data["impostors"]
    assert len(rates) <= STEPS + 1
    for wanted in (0.1, 0.01, 1e-3, 1e-4):
        assert np.min(np.abs(np.log(rates[rates > 0] / wanted))) < 0.3
    assert max(np.diff(np.array(data["genuine"])[::-1]) / data["genuines"]) < 0.03


def test_examples_say_how_they_are_decided(pairs):
    same, scores = pairs
    rows = spread(same, scores)
    assert len(rows) == 24 and same[rows].sum() == 12 and (np.diff(scores[rows]) <= 0).all()
    assert {scores[rows].max(), scores[rows].min()} == {scores.max(), scores.min()}
    examples = [Example(0.9, True, ("a", "b")), Example(0.9, False), Example(0.1, True), Example(0.1, False)]
    shown = explore(same, scores, 0.5, examples)["examples"]
    assert [(one["outcome"], one["wrong"]) for one in shown] == [
        ("genuine pair accepted", False),
        ("impostor pair accepted: wrong", True),
        ("genuine pair rejected: wrong", True),
        ("impostor pair rejected", False),
    ]
    assert shown[0]["who"] == "a b"


def test_each_group_has_examples(pairs):
    same, scores = pairs
    groups = np.where(np.arange(3000) < 9, "few", np.where(np.arange(3000) % 2, "odd", "even"))
    groups[:3][same[:3]] = "one"
    rows = spread(same, scores, groups)
    assert (np.diff(scores[rows]) <= 0).all() and len(np.unique(rows)) == len(rows)
    for name in np.unique(groups):
        for kind in (same, ~same):
            chosen = np.flatnonzero(kind & (groups == name))
            found = rows[np.isin(rows, chosen)]
            assert len(found) == min(3, len(chosen))
            if len(chosen):
                assert {scores[found].max(), scores[found].min()} == {scores[chosen].max(), scores[chosen].min()}
    examples = [Example(0.9, True, group=2), Example(0.8, True, group=0), Example(0.1, True)]
    shown = explore(same, scores, 0.5, examples, grouped(groups, "About."))
    assert shown["groups"] == ["even", "few", "odd", "one"] and shown["about"] == "About."
    assert [one["of"] for one in shown["examples"]] == ["odd", "even", ""]


@pytest.mark.parametrize("threshold", [0.5, 1.234, 0.1 + 0.2, math.inf])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_each_group_has_the_counts_of_a_loop(pairs, threshold, dtype):
    same, scores = pairs[0], pairs[1].astype(dtype)
    labels = np.where(same & (scores > 3), "genuine only", np.where(np.arange(3000) % 7, "many", "few"))
    found = explore(same, scores, threshold, groups=grouped(labels, ""))
    data = json.loads(json.dumps(found["data"], allow_nan=False))
    assert found["groups"] == ["few", "genuine only", "many"]
    for name, one in zip(found["groups"], data["groups"], strict=True):
        genuine, impostor = scores[same & (labels == name)], scores[~same & (labels == name)]
        assert (one["genuines"], one["impostors"]) == (len(genuine), len(impostor))
        for at, value in enumerate(data["thresholds"]):
            cut = threshold if at == data["start"] else value
            assert (one["genuine"][at], one["impostor"][at]) == (np.sum(genuine >= cut), np.sum(impostor >= cut))
        bars = [np.histogram(some, BINS, (data["low"], data["high"]))[0] for some in (genuine, impostor)]
        np.testing.assert_array_equal(one["bars"], bars)
    for kind in ("genuine", "impostor"):
        np.testing.assert_array_equal(np.sum([one[kind] for one in data["groups"]], 0), data[kind])


def test_of_many_groups_the_smallest_are_put_together():
    labels = np.repeat(np.arange(300), np.where(np.arange(300) % 5, 1, 3))  # 60 of 3 pairs, 240 of one
    groups = grouped(labels, "About.")
    kept = [*range(0, 300, 5), *[label for label in range(300) if label % 5][:39]]
    assert groups.names == [*map(str, sorted(kept)), "201 other groups"] and len(groups.names) == GROUPS
    assert groups.about == "About. The 201 groups with the fewest pairs are put together."
    wanted = [str(label) if label in kept else "201 other groups" for label in labels]
    assert [groups.names[code] for code in groups.codes] == wanted
    assert grouped(labels[labels < GROUPS], "").names == [str(label) for label in range(GROUPS)]


def test_few_and_equal_scores(tmp_path):
    found = explore(np.array([True, False]), np.array([0.5, 0.5]), 0.5)
    assert found["rows"][0][1:] == ("1", "1", "0", "0 %") and found["data"]["low"] < 0.5 < found["data"]["high"]
    assert len(spread(np.array([True, False]), np.array([0.5, 0.5]))) == 2


@pytest.mark.parametrize("negated", ["distance", "output", None])
def test_the_page_says_that_scores_are_negative_distances(pairs, tmp_path, negated):
    pytest.importorskip("matplotlib"), pytest.importorskip("jinja2")
    report = evaluate(*pairs)
    report.pairs["negated"] = negated
    report.to_html(tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert (f"score = −{negated}<" in page) == (f"negative: score = −{negated}." in page) == (negated is not None)


@pytest.mark.deep
def test_the_page_of_a_million_pairs_is_small(rng, tmp_path):
    pytest.importorskip("matplotlib"), pytest.importorskip("jinja2")
    same = np.arange(1_000_000) % 10 == 0
    report = evaluate(same, rng.normal(size=len(same)) + 3 * same)
    for groups in (None, np.random.default_rng(0).integers(10**9, 10**9 + 5000, 1_000_000)):
        report.to_html(tmp_path / "page.html", groups=groups)
        assert (tmp_path / "page.html").stat().st_size < 2e6
    assert f"At threshold {report.eer_point.threshold:.6g}: of 100" in (tmp_path / "page.html").read_text()
