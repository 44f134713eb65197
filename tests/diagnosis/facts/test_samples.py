"""Signals of the samples: wrong labels, who holds how many, scales, detail, and what both sides share."""

import numpy as np
import pytest

from keras_siamese.diagnosis.facts import samples

pytestmark = pytest.mark.any_backend


@pytest.fixture(autouse=True)
def seeded():
    """In place of conftest's: nothing here touches Keras."""


def scored_identities(rng, noise, identities=120, per=6):
    """`(same, scores, left, right, wrong)` of separate identities, a share `noise` of whose labels are others'."""
    truth = np.repeat(np.arange(identities), per)
    z = rng.normal(size=(identities, 16))[truth] + 0.2 * rng.normal(size=(len(truth), 16))
    labels = truth.copy()
    wrong = rng.permutation(len(truth))[: int(noise * len(truth))]
    labels[wrong] = rng.permutation(truth)[wrong]
    left, right = np.triu_indices(len(truth), 1)
    scores = -np.linalg.norm(z[left] - z[right], axis=1)
    return labels[left] == labels[right], scores, left, right, np.flatnonzero(labels != truth)


@pytest.mark.parametrize("noise", [0.0, 0.1, 0.2, 0.4])
def test_wrong_labels_make_genuine_pairs_score_as_impostors(rng, noise):
    same, scores, left, right, wrong = scored_identities(rng, noise)
    impostors = np.mean(np.isin(left[same], wrong) | np.isin(right[same], wrong))
    assert samples.impostor_like(same, scores) == pytest.approx(impostors, rel=0.2, abs=0.01)


def test_of_right_labels_few_score_so_however_hard_they_are(rng):
    scores = np.concatenate([rng.normal(1.5, 1, 4000), rng.normal(0, 1, 4000)])
    assert samples.impostor_like(np.arange(8000) < 4000, scores) < 0.1


def test_the_suspected_rows_are_those_with_wrong_labels(rng):
    same, scores, left, right, wrong = scored_identities(rng, 0.15)
    like = samples.impostor_like(same, scores)
    suspects = samples.suspected_labels(same, scores, left, right, 720, like)
    assert len(np.intersect1d(suspects, wrong)) >= 0.75 * len(wrong)
    assert len(np.setdiff1d(suspects, wrong)) <= 0.02 * 720
    same, scores, left, right, _ = scored_identities(rng, 0.0)
    assert len(samples.suspected_labels(same, scores, left, right, 720, like)) == 0


def test_an_encoder_that_has_learned_nothing_makes_nobody_suspect(rng):
    labels = np.repeat(np.arange(30), 6)
    left, right = np.triu_indices(180, 1)
    same, scores = labels[left] == labels[right], rng.normal(size=len(left))
    assert len(samples.suspected_labels(same, scores, left, right, 180, wrong_pairs=0.0)) == 0


def test_shares_of_identities():
    assert samples.effective_count([10, 10, 10, 10]) == 4.0
    assert samples.effective_count([1000, 1, 1]) == pytest.approx(1.0, abs=0.01)
    assert samples.largest_share([45, 45, 5, 5]) == 0.9
    assert samples.largest_share([1, 3], of=1) == 0.75


def test_scale_over_an_array_and_a_dict():
    assert samples.root_mean_square(np.array([[3.0, -4.0]])) == pytest.approx(np.sqrt(12.5))
    assert samples.root_mean_square({"a": np.full((2, 2), 2.0), "b": np.zeros((2, 2))}) == pytest.approx(np.sqrt(2))


def test_detail_falls_with_blur_and_not_with_brightness(rng):
    from scipy.ndimage import gaussian_filter

    drawings = (rng.random((40, 24, 24)) > 0.8).astype(float)
    blurred = [gaussian_filter(drawings, (0, sigma, sigma)) for sigma in (0.7, 1.5)]
    values = [samples.detail(images) for images in (drawings, *blurred)]
    assert values[0] > 1 > values[1] > values[2] and values[2] < 0.1
    assert samples.detail(50 + 3 * drawings[..., None]) == pytest.approx(values[0])


def test_equal_names_mean_the_same_only_where_samples_are_near(rng):
    centres = rng.normal(size=(40, 8))
    names = np.repeat(np.arange(20), 4)
    train = centres[names] + 0.3 * rng.normal(size=(80, 8))
    leaked = centres[names] + 0.3 * rng.normal(size=(80, 8))
    renumbered = centres[names + 20] + 0.3 * rng.normal(size=(80, 8))
    assert samples.shared_auc(train, names, leaked, names) > 0.95
    assert samples.shared_auc(train, names, renumbered, names) == pytest.approx(0.5, abs=0.12)
    assert samples.shared_auc(train, names, leaked, names + 100) is None
    assert samples.shared_auc(train, names, leaked, np.array([f"p{name}" for name in names])) is None
