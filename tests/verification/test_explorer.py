"""The part of a page that moves the threshold: its counts are those of a loop, and its values fit into JSON."""

import json
import math

import numpy as np
import pytest

from keras_siamese.verification import evaluate
from keras_siamese.verification.evidence import in_words
from keras_siamese.verification.explorer import STEPS, Example, explore, spread


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
    shown = explore(
        same, scores, 0.5, [Example(0.9, True, group="b"), Example(0.8, True, group="a"), Example(0.1, True)]
    )
    assert shown["groups"] == ["a", "b"] and [one["group"] for one in shown["examples"]] == ["b", "a", ""]


def test_few_and_equal_scores(tmp_path):
    found = explore(np.array([True, False]), np.array([0.5, 0.5]), 0.5)
    assert found["rows"][0][1:] == ("1", "1", "0", "0 %") and found["data"]["low"] < 0.5 < found["data"]["high"]
    assert len(spread(np.array([True, False]), np.array([0.5, 0.5]))) == 2


@pytest.mark.deep
def test_the_page_of_a_million_pairs_is_small(rng, tmp_path):
    pytest.importorskip("matplotlib"), pytest.importorskip("jinja2")
    same = np.arange(1_000_000) % 10 == 0
    report = evaluate(same, rng.normal(size=len(same)) + 3 * same)
    report.to_html(tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 2e6
    assert f"At threshold {report.eer_point.threshold:.6g}: of 100" in (tmp_path / "page.html").read_text()
