"""BalancedBatchSequence: P identities of K samples that take turns, pure batches, and the identities left out."""

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from keras_siamese import callbacks, losses
from keras_siamese.data import BalancedBatchSequence
from keras_siamese.data.balanced import draw_identities

NAMES = np.array(["ada", "bo", "cy", "di"])
UNEVEN = NAMES[[2, 0, 3, 1, 3, 2, 3, 0, 3, 2, 3]]  # ada 2, bo 1, cy 3, di 5, mixed up


def indices_as_samples(labels, classes=3, samples=2, **options):
    """A sequence whose samples are their own indices, so that a batch shows which samples it has."""
    return BalancedBatchSequence(
        np.arange(len(labels)), labels, classes_per_batch=classes, samples_per_class=samples, **options
    )


def assert_batches_equal(first, second):
    for one, other in zip(first, second, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


# What a batch is


def test_a_batch_is_identities_side_by_side_with_their_codes():
    x = np.arange(11 * 6, dtype="float32").reshape(11, 2, 3)
    sequence = BalancedBatchSequence(x, UNEVEN, classes_per_batch=2, samples_per_class=3, batches_per_epoch=50)
    assert len(sequence) == 50
    for index in range(50):
        samples, codes = sequence[index]
        rows = sequence.rows()[index]
        assert samples.shape == (6, 2, 3)
        assert codes.dtype == np.int32
        np.testing.assert_array_equal(samples, x[rows])
        np.testing.assert_array_equal(sequence.identities[codes], UNEVEN[rows])
        blocks = codes.reshape(2, 3)
        assert np.all(blocks == blocks[:, :1])
        assert blocks[0, 0] != blocks[1, 0]


@settings(max_examples=100, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 7), min_size=3, max_size=12),
    classes=st.integers(2, 5),
    samples=st.integers(2, 5),
    batches=st.integers(1, 40),
    seed=st.integers(0, 2**40),
)
def test_turns_are_fair_and_samples_distinct(sizes, classes, samples, batches, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    taking_part = [identity for identity, size in enumerate(sizes) if size > 1]
    if len(taking_part) < classes:
        return
    sequence = indices_as_samples(labels, classes, samples, batches_per_epoch=batches, seed=seed)
    rows = sequence.rows(1).reshape(batches, classes, samples)
    visits = labels[rows[:, :, 0]]
    assert np.all(labels[rows] == visits[:, :, None])
    assert all(len(set(batch)) == classes for batch in visits.tolist())
    counts = np.bincount(visits.ravel(), minlength=len(sizes))
    assert set(np.flatnonzero(counts)) <= set(taking_part)
    assert counts[taking_part].max() - counts[taking_part].min() <= 1
    shown = np.bincount(rows.ravel(), minlength=len(labels))
    for identity in taking_part:
        used = shown[labels == identity]
        assert used.max() - used.min() <= 1
    for visit, identity in zip(rows.reshape(-1, samples).tolist(), visits.ravel().tolist(), strict=True):
        assert len(set(visit)) == min(samples, sizes[identity])


def test_natural_weighting_follows_the_samples():
    labels = np.repeat(np.arange(5), [2, 4, 8, 16, 32])
    sequence = indices_as_samples(labels, 2, 2, weighting="natural", batches_per_epoch=4000)
    first, second = labels[sequence.rows()[:, ::2]].T
    assert np.all(first != second)
    share = np.array([2, 4, 8, 16, 32]) / 62
    # The chance that an identity is one of two that are drawn without replacement.
    expected = [share[i] + sum(share[j] * share[i] / (1 - share[j]) for j in range(5) if j != i) for i in range(5)]
    got = np.bincount(np.concatenate([first, second]), minlength=5)
    assert chisquare(got, 4000 * np.array(expected)).pvalue > 1e-4
    balanced = indices_as_samples(labels, 2, 2, batches_per_epoch=4000)
    assert np.ptp(np.bincount(labels[balanced.rows()[:, ::2]].ravel())) <= 1


def test_every_pair_of_identities_meets_equally_often(rng):
    met = np.zeros((5, 5))
    for _ in range(300):
        for batch in draw_identities(rng, 5, 10, 2):
            met[tuple(sorted(batch))] += 1
    assert chisquare(met[np.triu_indices(5, 1)]).pvalue > 1e-4


def test_what_takes_part_and_what_is_said_of_it():
    repeated = indices_as_samples(UNEVEN, 3, 4)
    assert (repeated.left_out, repeated.repeated) == (1, 2)  # bo; ada and cy
    assert repr(repeated) == (
        "BalancedBatchSequence(11 samples of 4 identities, 1 left out, 2 with samples repeated; 1 batches of 3 × 4; "
        "epoch 0)"
    )
    dropped = indices_as_samples(UNEVEN, 2, 3, short="drop")
    assert (dropped.left_out, dropped.repeated) == (2, 0)  # bo and ada
    assert len(dropped) == 2  # cy's and di's 8 samples
    views = indices_as_samples(UNEVEN, 4, 2, augment=lambda batch, rng: batch + rng.random(len(batch)))
    assert (views.left_out, views.repeated) == (0, 1)
    samples, codes = views[0]
    of_bo = samples[views.identities[codes] == "bo"]
    assert of_bo[0] != of_bo[1]
    np.testing.assert_array_equal(np.floor(of_bo), [3, 3])


def test_two_views_of_each_sample():
    x = np.arange(8.0)
    sequence = BalancedBatchSequence(
        x, np.arange(8), classes_per_batch=4, samples_per_class=2, augment=lambda batch, rng: batch + rng.random(8)
    )
    assert len(sequence) == 1
    samples, codes = sequence[0]
    np.testing.assert_array_equal(np.floor(samples), codes)
    assert len(set(samples.tolist())) == 8


def test_dicts_stay_dicts():
    x = {"image": np.arange(22).reshape(11, 2), "meta": {"row": np.arange(11)}}
    samples, _ = BalancedBatchSequence(x, UNEVEN, classes_per_batch=3, samples_per_class=2)[0]
    np.testing.assert_array_equal(samples["image"][:, 0], 2 * samples["meta"]["row"])


@pytest.mark.deep
def test_an_encoder_learns_from_it(rng):
    centres = rng.normal(size=(12, 6))
    labels = np.repeat(np.arange(12), 5)
    x = (centres[labels] + rng.normal(size=(60, 6))).astype("float32")
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.UnitNormalization()])
    encoder.compile(keras.optimizers.Adam(0.05), loss=losses.SupConLoss())
    sequence = BalancedBatchSequence(x, labels, classes_per_batch=6, samples_per_class=4, workers=2)
    history = encoder.fit(sequence, epochs=6, callbacks=[callbacks.SetEpoch(sequence)], verbose=0).history["loss"]
    assert history[-1] < 0.9 * history[0]


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"labels": [0, 0, 1, 2, 3, 4]},
            r"`classes_per_batch` must be at most 1, the number of identities with at least 2 samples \(of 5\); got 2",
        ),
        ({"short": "drop", "samples_per_class": 3}, r"at most 0, .* at least 3 samples \(of 3\); got 2"),
        ({"classes_per_batch": 1}, "`classes_per_batch` must be at least 2; got 1"),
        ({"samples_per_class": 1}, "`samples_per_class` must be at least 2; got 1"),
        ({"batches_per_epoch": 0}, "`batches_per_epoch` must be at least 1; got 0"),
        ({"weighting": "even"}, "`weighting` must be one of 'balanced', 'natural'; got 'even'"),
        ({"short": "pad"}, "`short` must be one of 'repeat', 'drop'; got 'pad'"),
        ({"labels": [0, 0, 1]}, "`labels` must have one entry for each of the 6 samples; got 3"),
        ({"frozen": True, "augment": lambda batch, rng: batch}, "`augment` must be None when frozen=True"),
    ],
)
def test_refuses(change, message):
    arguments = {"x": np.zeros((6, 2)), "labels": [0, 0, 1, 1, 2, 2], "classes_per_batch": 2, "samples_per_class": 2}
    arguments |= change
    with pytest.raises(ValueError, match=message):
        BalancedBatchSequence(arguments.pop("x"), arguments.pop("labels"), **arguments)


def test_refuses_unknown_options():
    with pytest.raises(TypeError, match="no option 'batch_size'; it knows x, labels, classes_per_batch"):
        indices_as_samples(UNEVEN, batch_size=4)
