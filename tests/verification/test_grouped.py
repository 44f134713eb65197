"""Intervals of histograms by leaving out groups of identities, against loops, the bootstrap and the truth."""

import numpy as np
import pytest

from keras_siamese.verification import ScoreHistogram, auc, bootstrap, compare_shards, eer, tar_at_far
from keras_siamese.verification.grouped import GroupedHistogram

FIGURES = {"eer": eer, "auc": auc, ("tar_at_far", 0.02): lambda same, scores: tar_at_far(same, scores, 0.02)}


def people(seed, count=60, each=4):
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(np.arange(count), each))
    return rng.normal(size=(count, 16))[labels] + 0.9 * rng.normal(size=(count * each, 16)), labels


def pairs(embeddings, labels):
    """All pairs: `same`, `scores` and the rows of both sides."""
    directions = embeddings / np.linalg.norm(embeddings, axis=1, keepdims=True)
    left, right = np.triu_indices(len(labels), 1)
    return labels[left] == labels[right], (directions @ directions.T - 1)[left, right], left, right


def grouped(embeddings, labels, **options):
    return compare_shards(embeddings, labels, **{"groups": 6, "progress": False, **options})


@pytest.mark.parametrize("rows", [70, 1000])
def test_standard_errors_are_those_of_a_loop_that_leaves_out_identities(rows):
    embeddings, labels = people(0)
    found = grouped(embeddings, labels, rows=rows)
    names = np.random.default_rng(0).permutation(60)  # as the groups are drawn
    group = names[labels] * 6 // 60
    assert np.bincount(group).tolist() == [40] * 6
    intervals = found.intervals(list(FIGURES))
    for name, figure in FIGURES.items():
        left_out = [figure(*pairs(embeddings[group != one], labels[group != one])[:2]) for one in range(6)]
        error = np.sqrt(5 / 6 * np.sum((left_out - np.mean(left_out)) ** 2))
        whole = figure(*pairs(embeddings, labels)[:2])
        interval = intervals[name]
        assert interval.estimate == pytest.approx(whole, abs=2e-4)
        assert interval.standard_error == pytest.approx(error, rel=0.05)
        assert np.std(interval.replicates, ddof=1) == pytest.approx(interval.standard_error)
        # 2.571 is the 97.5 % point of Student's t with 5 degrees of freedom.
        assert interval.high - whole == pytest.approx(min(2.571 * interval.standard_error, 1 - whole), rel=1e-2)


def test_what_touches_a_group_is_counted_once():
    embeddings, labels = people(1)
    found, (same, _, left, right) = grouped(embeddings, labels, rows=50), pairs(embeddings, labels)
    group = np.random.default_rng(0).permutation(60)[labels] * 6 // 60
    for one in range(6):
        touches = (group[left] == one) | (group[right] == one)
        counted = found._touching[:, one].sum(axis=1).tolist()
        assert counted == [np.count_nonzero(touches & ~same), np.count_nonzero(touches & same)]
    assert (found.genuines, found.impostors) == (same.sum(), (~same).sum())


@pytest.mark.parametrize("seed", [2, 3])
def test_standard_errors_are_near_those_of_the_bootstrap(seed):
    embeddings, labels = people(seed)
    intervals = grouped(embeddings, labels, groups=20).intervals(list(FIGURES))
    same, scores, left, right = pairs(embeddings, labels)
    expected = bootstrap(list(FIGURES), same, scores, labels[left], labels[right])
    for name, interval in intervals.items():
        assert 0.6 < interval.standard_error / expected[name].standard_error < 1.6


@pytest.mark.deep
def test_intervals_cover_the_figure_and_are_as_wide_as_it_varies():
    runs = [grouped(*people(seed, 100), groups=20, bins=8192).intervals(list(FIGURES)) for seed in range(200)]
    for name in FIGURES:
        estimates, errors = np.array([(run[name].estimate, run[name].standard_error) for run in runs]).T
        ratio = np.sqrt(np.mean(errors**2)) / estimates.std(ddof=1)
        covered = np.mean([run[name].low <= estimates.mean() <= run[name].high for run in runs])
        assert 0.85 < ratio < 1.3 and covered > 0.89, (name, ratio, covered)


def test_mistakes_are_named():
    embeddings, labels = people(0, 8)
    with pytest.raises(ValueError, match="`groups` must be given"):
        compare_shards(embeddings, labels, progress=False).intervals(["eer"])
    with pytest.raises(ValueError, match="`groups` must be"):
        grouped(embeddings, labels, groups=9)
    with pytest.raises(TypeError, match="`statistics` must be a list"):
        grouped(embeddings, labels).intervals("eer")
    alone = np.concatenate([[0, 0], np.arange(1, 31)])  # one identity has all genuine pairs
    with pytest.raises(ValueError, match="use fewer `groups`"):
        grouped(embeddings, alone).intervals(["eer"])
    with pytest.raises(ValueError, match="`other` must have 3 groups of identities; got 0"):
        GroupedHistogram(-2, 0, groups=3).merge(ScoreHistogram(-2, 0))
