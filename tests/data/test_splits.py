"""Splits and folds: parts share no identity, and no sample is lost or reordered."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_siamese.data import IdentityKFold, split_identities

NAMES = np.array(["ada", "bo", "cy", "di", "eve", "flo", "gus", "hal"])


@settings(max_examples=60, deadline=None)
@given(
    labels=st.lists(st.integers(-5, 20), min_size=3, max_size=60).filter(lambda labels: len(set(labels)) >= 3),
    fractions=st.sampled_from([(0.7, 0.15, 0.15), (0.8, 0.2), (0.5, 0.25, 0.25), (1.0,), (0.98, 0.01, 0.01)]),
    seed=st.integers(0, 2**40),
)
def test_parts_share_no_identity_and_lose_nothing(labels, fractions, seed):
    rows = np.arange(len(labels))
    parts = split_identities(rows, labels, fractions, seed=seed)

    assert len(parts) == len(fractions)
    assert sorted(np.concatenate([x for x, _ in parts]).tolist()) == rows.tolist()
    for i, (x, part_labels) in enumerate(parts):
        assert len(x) > 0
        assert np.all(np.diff(x) > 0), "samples keep their order"
        assert part_labels.tolist() == [labels[row] for row in x]
        for _, other in parts[i + 1 :]:
            assert not set(part_labels.tolist()) & set(other.tolist())


@pytest.mark.parametrize(
    ("identities", "fractions", "sizes"),
    [
        (20, (0.7, 0.15, 0.15), (14, 3, 3)),
        (10, (0.8, 0.2), (8, 2)),
        (10, (0.75, 0.125, 0.125), (8, 1, 1)),  # 7.5, 1.25, 1.25: the largest remainder gets the identity left over
        (3, (0.98, 0.01, 0.01), (1, 1, 1)),  # each part is given one
        (100, (0.1,) * 10, (10,) * 10),
    ],
)
def test_fractions_count_identities_whatever_their_samples(identities, fractions, sizes):
    labels = np.repeat(np.arange(identities), 1 + np.arange(identities) % 7)
    parts = split_identities(np.arange(len(labels)), labels, fractions)
    assert tuple(len(set(part.tolist())) for _, part in parts) == sizes


def test_split_takes_nested_dicts_and_string_labels():
    labels = np.repeat(NAMES, 3)
    x = {"image": np.arange(24 * 4).reshape(24, 2, 2), "meta": {"age": np.arange(24.0)}}
    train, test = split_identities(x, labels, (0.75, 0.25), seed=4)
    assert train[0]["image"].shape == (18, 2, 2)
    assert test[0]["meta"]["age"].shape == (6,)
    for part, part_labels in (train, test):
        np.testing.assert_array_equal(part["image"][:, 0, 0], 4 * part["meta"]["age"])
        np.testing.assert_array_equal(labels[part["meta"]["age"].astype(int)], part_labels)
        assert part_labels.dtype == labels.dtype


def test_split_depends_on_the_seed_alone():
    labels = np.repeat(np.arange(12), 2)
    np.random.seed(1)
    first = split_identities(labels, labels, seed=3)
    np.random.seed(2)
    again = split_identities(labels, labels, seed=3)
    other = split_identities(labels, labels, seed=4)
    for (x, _), (y, _) in zip(first, again, strict=True):
        np.testing.assert_array_equal(x, y)
    assert first[0][0].tolist() != other[0][0].tolist()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"fractions": (0.7, 0.2)}, "`fractions` must sum to 1.*0.9"),
        ({"fractions": (1.2, -0.2)}, r"`fractions\[0\]` must be in \(0, 1\]; got 1.2"),
        ({"fractions": (1.0, 0.0)}, r"`fractions\[1\]` must be in \(0, 1\]; got 0.0"),
        ({"fractions": (0.25,) * 4, "labels": [0, 0, 1, 1, 2, 2]}, "one identity for each of the 4 parts; got 3"),
        ({"labels": [0, 1, 2]}, "`labels` must have one entry for each of the 6 samples; got 3"),
        ({"x": np.zeros((0, 2)), "labels": []}, "`x` must hold at least one sample"),
        ({"x": {"a": np.zeros(6), "b": np.zeros(5)}}, r"one length; got x\['a'\] 6, x\['b'\] 5"),
        ({"x": {}}, "`x` must hold at least one array"),
        ({"x": np.array([0, 1, np.nan, 3, np.inf, 5])}, "`x` must be finite; 2 of its 6 samples"),
        ({"seed": -1}, "`seed` must be at least 0; got -1"),
    ],
)
def test_split_refuses(change, message):
    arguments = {"x": np.arange(6), "labels": [0, 0, 1, 1, 2, 3]} | change
    with pytest.raises(ValueError, match=message):
        split_identities(arguments.pop("x"), arguments.pop("labels"), **arguments)


def test_a_stratified_split_shares_out_large_and_small_identities():
    sizes = np.random.default_rng(1).permutation(np.repeat([1, 2, 40, 100], 10))
    labels = np.repeat(np.arange(40), sizes)
    parts = split_identities(np.arange(len(labels)), labels, (0.5, 0.3, 0.2), stratify=True, seed=3)
    for (_, part), share in zip(parts, (0.5, 0.3, 0.2), strict=True):
        assert len(set(part)) == 40 * share
        assert len(part) == pytest.approx(share * len(labels), rel=0.02)
        of_size = [np.count_nonzero(sizes[sorted(set(part))] == size) for size in (1, 2, 40, 100)]
        assert max(of_size) - min(of_size) <= 1
    assert not set(parts[0][1]) & set(parts[1][1])
    again = split_identities(np.arange(len(labels)), labels, (0.5, 0.3, 0.2), stratify=True, seed=4)
    assert set(again[0][1]) != set(parts[0][1])


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.integers(0, 9), min_size=4, max_size=80).filter(lambda labels: len(set(labels)) >= 4),
    n_splits=st.integers(2, 4),
    shuffle=st.booleans(),
    seed=st.integers(0, 99),
)
def test_folds_are_disjoint_and_balanced_by_samples(labels, n_splits, shuffle, seed):
    labels = np.array(labels)
    folds = IdentityKFold(n_splits, shuffle=shuffle, seed=seed)
    sides = list(folds.split(np.zeros(len(labels)), labels))

    assert len(sides) == folds.get_n_splits() == n_splits
    assert sorted(np.concatenate([test for _, test in sides]).tolist()) == list(range(len(labels)))
    for train, test in sides:
        assert len(test) > 0
        assert sorted([*train.tolist(), *test.tolist()]) == list(range(len(labels)))
        assert not set(labels[train].tolist()) & set(labels[test].tolist())
    sizes = [len(test) for _, test in sides]
    assert max(sizes) - min(sizes) <= np.bincount(labels).max()  # what filling the emptiest fold promises


def test_folds_follow_the_seed_among_identities_of_one_size():
    labels = np.repeat(NAMES, 5)
    folds = {
        seed: [test.tolist() for _, test in IdentityKFold(4, seed=seed).split(labels, labels)] for seed in range(3)
    }
    assert folds[0] != folds[1] != folds[2]
    assert folds[0] == [test.tolist() for _, test in IdentityKFold(4, seed=0).split(labels, labels)]
    plain = [[test.tolist() for _, test in IdentityKFold(4, False, seed).split(labels, labels)] for seed in (0, 1)]
    assert plain[0] == plain[1]


def test_folds_serve_scikit_learn():
    from sklearn.model_selection import cross_val_score
    from sklearn.neighbors import KNeighborsClassifier

    x, labels = np.arange(24.0)[:, None], np.repeat(NAMES, 3)
    scores = cross_val_score(KNeighborsClassifier(1), x, labels, cv=IdentityKFold(3))
    assert scores.tolist() == [0, 0, 0], "no test identity was ever trained on"


def test_groups_come_before_y():
    groups = np.repeat([0, 1, 2], 4)
    for train, test in IdentityKFold(3).split(groups, np.arange(12) % 2, groups):
        assert not set(groups[train].tolist()) & set(groups[test].tolist())


def test_folds_refuse():
    with pytest.raises(ValueError, match="`n_splits` must be at least 2; got 1"):
        IdentityKFold(1)
    with pytest.raises(ValueError, match="`n_splits` must be at most the 2 identities; got 3"):
        next(IdentityKFold(3).split(None, [0, 0, 1]))
    with pytest.raises(ValueError, match=r"`y` or `groups` must be the identity labels \(n,\); got None"):
        next(IdentityKFold(3).split(np.zeros(4)))
    assert repr(IdentityKFold(3, seed=5)) == "IdentityKFold(n_splits=3, shuffle=True, seed=5, stratify=False)"


@pytest.mark.parametrize("n_splits", [2, 3, 5])
def test_stratified_folds_have_as_many_identities_of_each_size(n_splits):
    sizes = np.array([100, 100] + [20] * 10 + [2] * 60)
    labels = np.repeat(np.arange(len(sizes)), sizes)
    folds = list(IdentityKFold(n_splits, stratify=True).split(labels, labels))
    tested = [np.unique(labels[test]) for _, test in folds]
    assert sorted(np.concatenate(tested)) == list(range(len(sizes)))
    for (train, test), identities in zip(folds, tested, strict=True):
        assert len(train) + len(test) == len(labels) and not set(labels[train]) & set(identities)
        assert abs(len(identities) - len(sizes) / n_splits) < 1
        for size in (100, 20, 2):
            assert abs(np.count_nonzero(sizes[identities] == size) - np.count_nonzero(sizes == size) / n_splits) <= 1
    # If folds are balanced by samples instead, a fold with a large identity has fewer small ones.
    balanced = [np.unique(labels[test]) for _, test in IdentityKFold(n_splits).split(labels, labels)]
    assert max(map(len, balanced)) - min(map(len, balanced)) > 1 or n_splits == 2


def test_stratified_folds_follow_the_seed():
    labels = np.repeat(np.arange(30), 4)
    folds = [
        [test.tolist() for _, test in IdentityKFold(3, seed=seed, shuffle=shuffle, stratify=True).split(labels, labels)]
        for seed, shuffle in ((0, True), (0, True), (1, True), (1, False), (2, False))
    ]
    assert folds[0] == folds[1] != folds[2]
    assert folds[3] == folds[4]
