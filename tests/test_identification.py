"""Identification: the gallery's nearest, against every pair scored by hand, and decisions as `verify` makes them."""

import sys

import keras
import numpy as np
import pytest
from keras import layers

from keras_siamese import identification
from keras_siamese.layers import SiameseWrapper
from keras_siamese.verifier import Verifier

FEATURES = 6


def samples(n, seed):
    return np.random.default_rng(seed).normal(size=(n, FEATURES)).astype("float32")


def verifier_of(distance="euclidean", head=None, threshold=-0.8):
    encoder = keras.Sequential([keras.Input((FEATURES,)), layers.Dense(5), layers.UnitNormalization()])
    siamese = SiameseWrapper(encoder, distance, head=head)
    siamese((samples(2, 0), samples(2, 1)))
    return Verifier(siamese, threshold)


def by_hand(verifier, probes, gallery):
    """All scores `(n, m)`, pair by pair, and the gallery's rows, best first; ties are ordered by row."""
    left, right = (grid.ravel() for grid in np.meshgrid(range(len(probes)), range(len(gallery)), indexing="ij"))
    scores = verifier.score(probes[left], gallery[right]).reshape(len(probes), len(gallery))
    return scores, [sorted(range(len(gallery)), key=lambda row: (-line[row], row)) for line in scores]


@pytest.mark.parametrize(
    ("distance", "head"),
    [
        ("euclidean", None),
        ("cosine", None),
        ("manhattan", None),
        ("cosine", "logistic"),
        ("euclidean", "layer"),
    ],
)
def test_the_nearest_are_those_of_all_pairs(distance, head, monkeypatch):
    head = layers.Dense(1, activation="sigmoid") if head == "layer" else head
    verifier = verifier_of(distance, head)
    probes, gallery = samples(17, 2), samples(40, 3)
    monkeypatch.setattr(identification, "CELLS", 3 * len(gallery))  # so that there are several blocks
    scores, rows = by_hand(verifier, probes, gallery)
    verifier.threshold = float(np.sort(scores, axis=1)[:, -4].mean())
    found = verifier.identify(probes, gallery, k=7)
    np.testing.assert_allclose(found.scores, np.take_along_axis(scores, found.rows, 1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.scores, [line[order[:7]] for line, order in zip(scores, rows, strict=True)], 1e-5)
    assert (found.rows == np.array(rows)[:, :7]).mean() > 0.95  # equal but for what rounding ties
    np.testing.assert_array_equal(found.accepted, found.scores >= np.float32(verifier.threshold))
    assert 0 < found.accepted.mean() < 1
    assert found.labels is None


def test_labels_come_along_and_a_gallery_is_embedded_once(monkeypatch):
    verifier = verifier_of()
    names = np.array(["ada", "bo", "cy"])
    gallery = verifier.enroll(samples(3, 4), names)
    assert repr(gallery) == "Gallery(3 samples of 3 identities)" and len(gallery) == 3
    found = verifier.identify(samples(3, 4), gallery, k=3)
    assert found.labels[:, 0].tolist() == names.tolist() and found.rows[:, 0].tolist() == [0, 1, 2]
    again = verifier.identify(samples(3, 4), (samples(3, 4), names), k=3)
    np.testing.assert_array_equal(found.scores, again.scores)


@pytest.mark.each_backend
def test_near_duplicates_are_told_apart_by_the_scores_of_single_pairs():
    """Matrix products lose the small differences, so a shortlist alone would be in any order."""
    verifier = verifier_of(threshold=-1e-3)
    probe = np.repeat(samples(1, 5), 4, axis=0)  # as many as the gallery: a batch of one would be rounded otherwise
    gallery = np.concatenate([probe[:1] + step * samples(1, 6) for step in (3e-4, 2e-4, 1e-4, 0.0)])
    found = verifier.identify(probe, gallery, k=4)
    assert found.rows.tolist() == [[3, 2, 1, 0]] * 4
    assert found.scores[3, 0] == 0.0


def test_of_equal_samples_the_first_comes_first():
    verifier = verifier_of()
    gallery = verifier.enroll(samples(30, 8))
    gallery.embeddings[:] = gallery.embeddings[0]  # embedded one by one, equal samples may differ in the last bit
    found = verifier.identify(samples(2, 7), gallery, k=5)
    assert found.rows.tolist() == [[0, 1, 2, 3, 4]] * 2


def test_what_cannot_be_asked_is_refused():
    verifier = verifier_of()
    gallery = verifier.enroll(samples(3, 9))
    with pytest.raises(ValueError, match="`k` must be at most 3; got 4"):
        verifier.identify(samples(1, 9), gallery, k=4)
    with pytest.raises(ValueError, match="`k` must be at least 1; got 0"):
        verifier.identify(samples(1, 9), gallery, k=0)
    with pytest.raises(ValueError, match="`labels` must have one entry for each of the 3 samples; got 2"):
        verifier.enroll(samples(3, 9), ["a", "b"])
    with pytest.raises(ValueError, match="finite"):
        verifier.identify(np.full((1, FEATURES), np.nan, "float32"), gallery)


def test_the_smallest_are_those_of_a_stable_sort(rng):
    for values in (rng.normal(size=(20, 30)), rng.integers(0, 4, (20, 30)), np.zeros((3, 30))):
        for count in (1, 7, 30):
            expected = np.sort(np.argsort(values, axis=1, kind="stable")[:, :count], axis=1)
            np.testing.assert_array_equal(identification.smallest(values, count), expected)


# --- faiss


FAISS_DISTANCES = ["euclidean", "squared_euclidean", "cosine", "angular", "inner_product"]


def check_equal(verifier, probes, gallery, k):
    """faiss gives the same rows and scores as all pairs, to the last bit."""
    pytest.importorskip("faiss", reason="the extra `faiss` is not installed")
    exact, quick = (verifier.identify(probes, verifier.enroll(gallery, index=index), k) for index in (None, "faiss"))
    for one, other in zip(exact[:3], quick[:3], strict=True):
        np.testing.assert_array_equal(one, other)
    return quick


def raw_verifier(distance, head=None):
    encoder = keras.Sequential([keras.Input((FEATURES,)), layers.Identity()])
    siamese = SiameseWrapper(encoder, distance, head=head)
    siamese((samples(2, 0), samples(2, 1)))
    return Verifier(siamese, -0.8)


@pytest.mark.parametrize("head", [None, "logistic"])
@pytest.mark.parametrize("distance", FAISS_DISTANCES)
def test_faiss_finds_what_all_pairs_find(distance, head):
    check_equal(raw_verifier(distance, head), samples(60, 10), samples(300, 11), k=5)
    check_equal(raw_verifier(distance, head), samples(3, 10), samples(9, 11), k=9)


@pytest.mark.parametrize("distance", FAISS_DISTANCES)
def test_faiss_breaks_ties_and_near_ties_as_all_pairs_do(distance):
    """There are more copies, near copies and vectors without direction than fit into the shortlist."""
    gallery = np.concatenate([np.repeat(samples(3, 12), 40, axis=0), np.zeros((20, FEATURES), "float32")])
    gallery = gallery[np.random.default_rng(13).permutation(len(gallery))]
    probes = np.concatenate([gallery[:30], samples(5, 14), np.zeros((1, FEATURES), "float32")])
    check_equal(raw_verifier(distance), probes, gallery, k=12)
    near = gallery + 1e-6 * samples(len(gallery), 15)
    check_equal(raw_verifier(distance), probes, near + 3.0, k=12)


def test_faiss_is_sure_of_most_and_says_of_which_not(monkeypatch):
    pytest.importorskip("faiss", reason="the extra `faiss` is not installed")
    verifier = raw_verifier("euclidean")
    gallery = np.concatenate([samples(200, 16), np.repeat(samples(1, 17), 30, axis=0)])
    index = verifier.enroll(gallery, index="faiss").index
    rows, is_sure = index.search(np.concatenate([samples(50, 18), samples(1, 17)]), 5)
    assert rows.shape == (51, 13) and (np.diff(rows, axis=1) > 0).all()
    assert is_sure[:50].mean() > 0.9 and not is_sure[50]
    # Where it is sure no block of the whole matrix is taken.
    monkeypatch.setattr(identification, "shortlist_of_block", None)
    verifier.identify(samples(50, 18)[is_sure[:50]], verifier.enroll(gallery, index="faiss"), 5)


def test_a_gallery_in_faiss_says_so_and_keeps_its_labels():
    pytest.importorskip("faiss", reason="the extra `faiss` is not installed")
    verifier = verifier_of()
    gallery = verifier.enroll(samples(3, 4), ["ada", "bo", "cy"], index="faiss")
    assert repr(gallery) == "Gallery(3 samples of 3 identities, in faiss)"
    assert verifier.identify(samples(3, 4), gallery).labels.tolist() == [["ada"], ["bo"], ["cy"]]


def test_what_faiss_cannot_rank_is_refused(monkeypatch):
    with pytest.raises(ValueError, match=r"squared_euclidean, cosine, angular or inner_product; got.*anhattan"):
        verifier_of("manhattan").enroll(samples(3, 4), index="faiss")
    head = layers.Dense(1, name="own")
    with pytest.raises(ValueError, match="no head, or the logistic one; got the head 'own'"):
        verifier_of(head=head).enroll(samples(3, 4), index="faiss")
    with pytest.raises(ValueError, match="`index` must be one of None, 'faiss'; got 'annoy'"):
        verifier_of().enroll(samples(3, 4), index="annoy")
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(ImportError, match=r'faiss is needed here.*pip install "keras-siamese\[faiss\]"'):
        verifier_of().enroll(samples(3, 4), index="faiss")
