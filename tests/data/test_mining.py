"""Hard negatives against a loop over all pairs of samples; the table as arrays, CSV file and DataFrame."""

import csv

import numpy as np
import pytest

from keras_siamese.data import from_pairs, mine_hard_negatives, mining

LABELS = np.repeat([7, 3, 5, 9, 1], [4, 3, 1, 5, 2])  # one single sample


def samples(rng, dim=4):
    order = rng.permutation(len(LABELS))
    centres = rng.normal(size=(10, dim))
    return (centres[LABELS] + 0.8 * rng.normal(size=(len(LABELS), dim)))[order].astype("float32"), LABELS[order]


def by_loop(z, labels, per_anchor, ranks=(0, 100), margin=0.0, relative=0.0, most=2.0, least=-2.0, margins=False):
    """Rows (anchor, positive, negative), one pair of samples at a time."""
    z = z.astype("float64")
    cosine = [[a @ b / np.linalg.norm(a) / np.linalg.norm(b) for b in z] for a in z]
    found = []
    for a in range(len(z)):
        own = [j for j in range(len(z)) if labels[j] == labels[a] and j != a]
        positive = min(own, key=lambda j: cosine[a][j]) if own else -1
        negatives = []
        for j in sorted((j for j in range(len(z)) if labels[j] != labels[a]), key=lambda j: -cosine[a][j]):
            p = cosine[a][positive]
            too_near = margins and own and (cosine[a][j] > p - margin or cosine[a][j] > p - relative * abs(p))
            if not too_near and least <= cosine[a][j] <= most:
                negatives.append(j)
        found += [(a, positive, j) for j in negatives[ranks[0] : ranks[1]][:per_anchor]]
    return found, cosine


CASES = {
    "all": ({}, {}),
    "one": ({"per_anchor": 1}, {}),
    "ranks": ({"ranks": (2, 4), "per_anchor": 5}, {"ranks": (2, 4)}),
    "margin": ({"margin": 0.1}, {"margin": 0.1, "margins": True}),
    "no margin": ({"margin": 0.0, "ranks": (1, 9)}, {"ranks": (1, 9), "margins": True}),
    "relative": ({"relative_margin": 0.25}, {"relative": 0.25, "margins": True}),
    "both": ({"margin": 0.3, "relative_margin": 0.05}, {"margin": 0.3, "relative": 0.05, "margins": True}),
    "margin and limit": (
        {"margin": 0.1, "max_similarity": 0.2},  # the only limit of the single sample
        {"margin": 0.1, "margins": True, "most": 0.2},
    ),
    "limits": ({"max_similarity": 0.6, "min_similarity": -0.1}, {"most": 0.6, "least": -0.1}),
}


@pytest.mark.parametrize("block", [1 << 22, 1, 40])
@pytest.mark.parametrize("name", CASES)
def test_the_rows_are_those_of_the_loop(rng, name, block, monkeypatch):
    monkeypatch.setattr(mining, "BLOCK", block)
    given, options = CASES[name]
    given = {"per_anchor": 3, **given}
    z, labels = samples(rng)
    found = mine_hard_negatives(z, labels, **given)
    wanted, cosine = by_loop(z, labels, given["per_anchor"], **options)
    assert list(zip(found.anchor, found.positive, found.negative, strict=True)) == wanted
    assert 0 < len(found) == len(wanted)
    values = [cosine[a][n] for a, _, n in wanted]
    np.testing.assert_allclose(found.negative_similarity, values, atol=1e-6)
    values = [cosine[a][p] if p >= 0 else np.nan for a, p, _ in wanted]
    np.testing.assert_allclose(found.positive_similarity, values, atol=1e-6)
    counts = np.bincount([a for a, _, _ in wanted], minlength=len(z))
    assert found.short == np.count_nonzero(counts < given["per_anchor"])


def test_the_loop_tells_the_margins_from_none(rng):
    z, labels = samples(rng)
    rows = [by_loop(z, labels, 3, **CASES[name][1])[0] for name in ("all", "margin", "relative", "both", "limits")]
    assert len({tuple(one) for one in rows}) == 5


def test_triplets_and_pairs_for_other_programs(rng):
    z, labels = samples(rng)
    found = mine_hard_negatives(z, labels, per_anchor=2)
    anchor, positive, negative = found.triplets()
    assert len(anchor) == 2 * (len(z) - 1)  # the single sample has no positive
    assert np.all(labels[anchor] == labels[positive]) and np.all(anchor != positive)
    assert np.all(labels[anchor] != labels[negative])
    left, right, same = found.pairs()
    np.testing.assert_array_equal(labels[left] == labels[right], same)
    assert same.sum() == len(z) - 1 and len(same) == len(found) + len(z) - 1
    assert len(from_pairs(z, left, right, same, batch_size=8)) == -(-len(same) // 8)


def test_names_in_a_csv_file_and_a_frame(rng, tmp_path):
    z, labels = samples(rng)
    identities = np.array([f'person "{label}", {label}' for label in labels])
    names = [f"{row}.png" for row in range(len(z))]
    found = mine_hard_negatives(z, identities, per_anchor=2)
    found.to_csv(tmp_path / "hard.csv", names)
    with open(tmp_path / "hard.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(found)
    for at, row in enumerate(rows):
        assert row["anchor"] == names[found.anchor[at]] and row["negative"] == names[found.negative[at]]
        assert row["label"] == identities[found.anchor[at]]
        assert row["negative_label"] == identities[found.negative[at]]
        assert float(row["negative_similarity"]) == found.negative_similarity[at]
        has = found.positive[at] >= 0
        assert row["positive"] == (names[found.positive[at]] if has else "")
        assert row["positive_similarity"] == (str(float(found.positive_similarity[at])) if has else "")
    pytest.importorskip("pandas")
    frame = found.to_frame(names)
    assert list(frame) == [*mining.COLUMNS, "label", "negative_label"]
    assert frame["negative"].tolist() == [row["negative"] for row in rows]
    assert found.to_frame()["negative"].tolist() == found.negative.tolist()


def test_nothing_is_left_if_no_negative_is_allowed(rng):
    z, labels = samples(rng)
    found = mine_hard_negatives(z, labels, max_similarity=-1.0)
    assert (len(found), found.short) == (0, len(z))
    assert repr(found) == "HardNegatives(0 negatives of 0 of 15 samples, 15 with fewer than wanted)"
    assert [len(column) for column in found.pairs()] == [0, 0, 0]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": [1] * 4}, ValueError, "`labels` must name at least two identities; got 1"),
        ({"labels": [1, 2]}, ValueError, "`embeddings` must have one row for each of the 2 samples; got 4"),
        ({"per_anchor": 0}, ValueError, "`per_anchor` must be at least 1; got 0"),
        ({"ranks": (3, 3)}, ValueError, r"`ranks\[1\]` must be at least 4; got 3"),
        ({"margin": -0.1}, ValueError, r"`margin` must be in \[0, 2\]; got -0.1"),
        ({"relative_margin": 1.5}, ValueError, r"`relative_margin` must be in \[0, 1\]; got 1.5"),
        ({"max_similarity": "high"}, TypeError, "`max_similarity` must be a number; got 'high'"),
        ({"min_similarity": -3}, ValueError, r"`min_similarity` must be in \[-1, 1\]; got -3"),
    ],
)
def test_refuses(change, error, message):
    given = {"embeddings": np.eye(4), "labels": [1, 1, 2, 2], **change}
    with pytest.raises(error, match=message):
        mine_hard_negatives(given.pop("embeddings"), given.pop("labels"), **given)


def test_names_are_one_for_each_sample():
    found = mine_hard_negatives(np.eye(4), [1, 1, 2, 2])
    with pytest.raises(ValueError, match="`names` must have one entry for each of the 4 samples; got 2"):
        found.columns(["a", "b"])


def test_equal_samples_have_similarity_one_and_are_allowed_by_a_limit_of_one(rng):
    z = np.repeat(rng.normal(size=(100, 64)), 2, axis=0)
    found = mine_hard_negatives(z, np.arange(200), 1, max_similarity=1.0)
    np.testing.assert_array_equal(found.negative, np.arange(200) ^ 1)
    assert found.negative_similarity.max() == 1
