"""The report: each figure is that of its function, and none is shown that the pairs cannot support."""

import dataclasses
import json
import math

import numpy as np
import pytest

from keras_siamese.verification import (
    accuracy_at,
    auc,
    auc_floor,
    best_accuracy,
    best_accuracy_floor,
    bootstrap,
    cllr,
    cross_fitted_accuracy,
    d_prime,
    eer,
    eer_point,
    evaluate,
    min_cllr,
    min_dcf,
    operating_point,
    tar_at_far,
    threshold_at_far,
)
from keras_siamese.verification.evidence import in_words


@pytest.fixture
def pairs(rng):
    """1,000 pairs of 50 identities, about 640 of them impostor."""
    left, right = rng.integers(0, 50, (2, 1000))
    right = np.where(rng.random(1000) < 0.35, left, right)
    same = left == right
    return same, np.round(rng.normal(size=1000) + 2 * same, 2), left, right


def test_each_figure_is_that_of_its_function(pairs):
    same, scores, *_ = pairs
    report = evaluate(same, scores, far=[0.1, 0.01], threshold=1.0)
    assert (report.genuines, report.impostors, report.identities) == (same.sum(), (~same).sum(), None)
    assert report.eer == eer(same, scores)
    assert report.eer_point == eer_point(same, scores)
    assert report.auc == auc(same, scores)
    assert report.auc_floor == auc_floor(report.genuines, report.impostors)
    assert report.d_prime == d_prime(same, scores)
    assert (report.best_accuracy, report.best_threshold) == best_accuracy(same, scores)
    assert report.best_accuracy_floor == best_accuracy_floor(report.genuines, report.impostors)
    assert report.accuracy == accuracy_at(same, scores, 1.0)
    assert (report.threshold, report.fmr, report.fnmr) == operating_point(same, scores, 1.0)
    assert report.cross_fitted_accuracy is None
    assert report.intervals == {}
    for figure, far in zip(report.tar, [0.1, 0.01], strict=True):
        assert figure.far == far
        assert figure.tar == tar_at_far(same, scores, far)
        assert figure.threshold == threshold_at_far(same, scores, far)


def test_without_a_threshold_the_accuracy_is_cross_fitted(pairs):
    same, scores, left, right = pairs
    report = evaluate(same, scores, left=left, right=right, seed=3)
    assert report.cross_fitted_accuracy == cross_fitted_accuracy(same, scores, left, right, seed=3)[0]
    assert (report.threshold, report.accuracy, report.fmr, report.fnmr) == (None, None, None, None)
    assert report.identities == 50


def test_intervals_are_those_of_the_bootstrap(pairs):
    same, scores, left, right = pairs
    report = evaluate(same, scores, far=(0.1, 0.001), threshold=1.0, left=left, right=right, confidence=0.9, seed=4)
    assert list(report.intervals) == ["eer", "auc", "accuracy", "fmr", "fnmr", "tar@far=0.1"]
    statistics = ["eer", "auc", ("accuracy_at", 1.0), ("fmr_at", 1.0), ("fnmr_at", 1.0), ("tar_at_far", 0.1)]
    expected = bootstrap(statistics, same, scores, left, right, confidence=0.9, seed=4)
    for name, statistic in zip(report.intervals, statistics, strict=True):
        np.testing.assert_array_equal(report.intervals[name].replicates, expected[statistic].replicates)
    assert report.intervals["eer"].estimate == report.eer
    assert report.intervals["tar@far=0.1"].estimate == report.tar[0].tar


def test_the_cross_fitted_accuracy_has_an_interval(pairs):
    same, scores, left, right = pairs
    report = evaluate(same, scores, left=left, right=right)
    interval = report.intervals["cross_fitted_accuracy"]
    assert interval.estimate == report.cross_fitted_accuracy
    assert interval.low < interval.estimate < interval.high


def test_the_rule_of_30_marks_and_withholds(pairs):
    same, scores, left, right = pairs
    report = evaluate(same, scores, far=(0.1, 0.01, 0.001), left=left, right=right)
    assert [figure.mark for figure in report.tar] == ["plain", "uncertain", "withheld"]
    withheld = report.tar[2]
    assert (withheld.tar, withheld.threshold, withheld.needed, withheld.shown_from) == (None, None, 30_000, 3_000)
    assert "tar@far=0.001" not in report.intervals
    lines = str(report).splitlines()[-3:]
    assert "uncertain" not in lines[0]
    assert "uncertain: reliable from 3,000 impostor pairs" in lines[1]
    assert f"{tar_at_far(same, scores, 0.001):.4f}" not in lines[2]
    assert "withheld" in lines[2] and "needs 3,000 impostor pairs, 30,000 for a reliable figure" in lines[2]


@pytest.mark.parametrize("threshold", [None, 1.0])
@pytest.mark.parametrize("known", [True, False], ids=["identities", "no identities"])
def test_the_table_is_aligned_and_complete(pairs, threshold, known):
    same, scores, left, right = pairs
    sides = {"left": left, "right": right} if known else {}
    report = evaluate(same, scores, far=(0.1, 0.001), threshold=threshold, **sides)
    heading, meaning, columns, *lines = str(report).splitlines()
    assert meaning == report.meaning
    assert heading.startswith(f"Verification of 1,000 pairs: {same.sum()} genuine, {(~same).sum()} impostor")
    assert heading.endswith(", 50 identities") == known
    assert ("95 % interval" in columns) == known
    end = columns.index("value") + len("value")
    for line in lines:
        assert line[end - 1] != " " and line[end : end + 2].strip() == ""
        if known and "withheld" not in line and not line.startswith(("d′", "best", "accuracy, balanced", "min")):
            assert line[end + 2] == "["
    names = [line[: end - 8].strip() for line in lines]
    assert names == [
        *([] if threshold is None else ["FMR", "FNMR", "accuracy, balanced", "accuracy"]),
        "EER",
        "AUC",
        "d′",
        *(["accuracy, cross-fitted", "best accuracy"] if threshold is None else []),
        "minDCF",
        "min Cllr",
        "TAR at FMR ≤ 0.1",
        "TAR at FMR ≤ 0.001",
    ]
    assert max(map(len, lines)) < 120


@pytest.mark.parametrize("threshold", [None, 1.0, math.inf])
def test_the_dict_is_plain_json(pairs, threshold):
    same, scores, left, right = pairs
    report = evaluate(same, scores, threshold=threshold, left=left, right=right)
    plain = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert set(plain) == {field.name for field in dataclasses.fields(report)} - {"pairs"} | {"balanced_accuracy"}
    assert plain["eer"] == report.eer
    assert plain["eer_point"] == {name: getattr(report.eer_point, name) for name in ("threshold", "fmr", "fnmr")}
    assert plain["tar"][0] == report.tar[0]._asdict()
    interval = report.intervals["eer"]
    assert plain["intervals"]["eer"] == {
        "low": interval.low,
        "high": interval.high,
        "standard_error": interval.standard_error,
    }
    assert plain["threshold"] == (1.0 if threshold == 1.0 else None)


def test_perfect_scores_show_bounds_instead_of_intervals():
    left = np.concatenate([np.arange(20), np.arange(20)])
    right = np.concatenate([np.arange(20), (np.arange(20) + 1) % 20])
    same = left == right
    report = evaluate(same, same * 1.0, threshold=0.5, left=left, right=right)
    assert report.intervals == {}
    assert report.to_dict()["d_prime"] is None
    lines = {line.split("  ")[0]: line for line in str(report).splitlines()}
    for name in ("EER", "FMR", "FNMR"):
        assert "no error in 20 pairs: below 0.15 if they are independent" in lines[name]
    assert lines["d′"].endswith("inf")


def test_inverted_scores_are_pointed_out(pairs):
    same, scores, *_ = pairs
    assert "inverted" in str(evaluate(same, -scores))
    assert "inverted" not in str(evaluate(same, scores))


def test_noise_is_not_taken_for_inversion(rng):
    same = np.arange(1000) % 2
    assert "inverted" not in str(evaluate(same, rng.normal(size=1000)))


def test_too_few_identities_to_cross_fit_give_no_accuracy():
    report = evaluate([1, 1, 0], [3, 2, 1], left=[0, 1, 0], right=[0, 1, 1])
    assert report.cross_fitted_accuracy is None
    assert "too few pairs or identities to choose thresholds on other folds" in str(report)


def test_the_same_seed_gives_the_same_report(pairs):
    same, scores, left, right = pairs
    first, again, other = (evaluate(same, scores, left=left, right=right, seed=seed).to_dict() for seed in (1, 1, 2))
    assert first == again != other


def test_a_report_is_frozen(pairs):
    report = evaluate(*pairs[:2])
    with pytest.raises(dataclasses.FrozenInstanceError):
        report.eer = 0.0


def test_one_far_needs_no_list(pairs):
    assert evaluate(*pairs[:2], far=0.1).tar == evaluate(*pairs[:2], far=[0.1]).tar


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"far": 0}, ValueError, r"`far` must be in \(0, 1\]"),
        ({"far": [0.1, 2]}, ValueError, r"`far` must be in \(0, 1\]; got 2"),
        ({"far": "0.1"}, TypeError, "`far` must be a number"),
        ({"threshold": math.nan}, ValueError, "`threshold`"),
        ({"confidence": 1.5}, ValueError, "`confidence` must be in"),
        ({"seed": -1}, ValueError, "`seed` must be at least 0"),
        ({"left": np.zeros(1000, int)}, ValueError, "`right` must be given if `left` is"),
    ],
)
def test_bad_options_are_refused_by_name(pairs, options, error, message):
    with pytest.raises(error, match=message):
        evaluate(*pairs[:2], **options)


def test_balanced_accuracy_weighs_both_classes_alike():
    same = np.array([1, 1, 0, 0, 0, 0, 0, 0])
    scores = np.array([0.9, 0.1, 0.8, 0.0, 0.0, 0.0, 0.0, 0.0])
    report = evaluate(same, scores, threshold=0.5)
    # One of two genuine pairs and five of six impostors are decided rightly.
    assert report.accuracy == 6 / 8
    assert report.balanced_accuracy == pytest.approx((1 / 2 + 5 / 6) / 2)
    assert report.to_dict()["balanced_accuracy"] == pytest.approx(2 / 3)
    _, meaning, _, first, *_ = str(report).splitlines()
    assert meaning == "At threshold 0.5: of 100 genuine pairs 50 are accepted; of 100 impostor pairs 17 are accepted."
    assert evaluate(same, scores).meaning == in_words(*evaluate(same, scores).eer_point)
    assert first.split() == ["FMR", "0.1667"] and "0.7500    of these pairs, 75 % of which are impostor" in str(report)
    assert evaluate(same, scores).balanced_accuracy is None


def test_costs_are_those_of_the_functions(pairs):
    same, scores, *_ = pairs
    report = evaluate(same, scores)
    assert (report.min_dcf, report.min_cllr, report.cllr) == (min_dcf(same, scores), min_cllr(same, scores), None)
    assert "\nCllr" not in str(report)
    calibrated = evaluate(same, scores, calibration=(2.0, -1.5))
    assert calibrated.cllr == cllr(same, 2.0 * scores - 1.5)
    (line,) = (line for line in str(calibrated).splitlines() if line.startswith("Cllr"))
    assert line.split()[1] == f"{calibrated.cllr:.4f}"
    with pytest.raises(ValueError, match="`calibration` must be in"):
        evaluate(same, scores, calibration=(np.nan, 0.0))


@pytest.mark.parametrize("threshold", [None, 1.0])
def test_the_frame_has_what_the_table_shows(pairs, threshold):
    pytest.importorskip("pandas")
    same, scores, left, right = pairs
    report = evaluate(same, scores, far=(0.1, 0.001), threshold=threshold, left=left, right=right)
    frame = report.to_frame()
    assert list(frame.columns) == ["value", "low", "high", "note"]
    shown = [line.split("  ")[0] for line in str(report).splitlines()[3:]]
    assert list(frame.index) == shown
    assert frame.loc["EER", "value"] == report.eer
    assert (frame.loc["AUC", "low"], frame.loc["AUC", "high"]) == (
        report.intervals["auc"].low,
        report.intervals["auc"].high,
    )
    assert np.isnan(frame.loc["TAR at FMR ≤ 0.001", "value"]) and np.isnan(frame.loc["d′", "low"])


def test_the_reliability_diagram_is_of_the_calibrated_scores(pairs, monkeypatch):
    pytest.importorskip("matplotlib")
    from keras_siamese.verification import plots

    same, scores, _, _ = pairs
    stated = []
    monkeypatch.setattr(plots, "plot_reliability", lambda axes, same, p: stated.append(p))
    evaluate(same, scores, threshold=1.0, calibration=(2.0, -1.5)).plot()
    np.testing.assert_allclose(stated[0], 1 / (1 + np.exp(-(2.0 * scores - 1.5))), rtol=1e-6)


@pytest.mark.parametrize("calibration", [None, (2.0, -1.5)])
def test_the_figure_has_every_curve(pairs, calibration):
    pytest.importorskip("matplotlib")
    same, scores, left, right = pairs
    figure = evaluate(same, scores, threshold=1.0, left=left, right=right, calibration=calibration).plot()
    figure.canvas.draw()
    assert [axes.get_xlabel() for axes in figure.axes] == [
        "score (larger = more similar)",
        "false match rate",
        "false match rate, %",
        *(["stated p(same)"] if calibration else []),
    ]
