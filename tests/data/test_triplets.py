"""TripletSequence: which samples are drawn, how often, and that an epoch can be repeated."""

import keras
import numpy as np
import pytest
from scipy.stats import chisquare

from keras_siamese import SiameseWrapper, losses
from keras_siamese.data import PairSequence, TripletSequence

UNEVEN = np.array(["ada", "bo", "cy", "di"])[[2, 0, 3, 1, 3, 2, 3, 0, 3, 2, 3]]  # ada 2, bo 1, cy 3, di 5


def triplets(labels=UNEVEN, **options):
    """A sequence whose samples are their own indices, so that a batch shows which samples it has."""
    return TripletSequence(np.arange(len(labels)), labels, **options)


def test_batches_are_three_towers_of_gathered_samples():
    x = np.arange(22, dtype="float32").reshape(11, 2)
    sequence = TripletSequence(x, UNEVEN, batch_size=4, triplets_per_epoch=10)
    assert len(sequence) == 3
    for index, size in enumerate([4, 4, 2]):
        towers, zeros = sequence[index]
        assert zeros.tolist() == [0.0] * size
        assert zeros.dtype == np.float32
        for tower, column in zip(towers, sequence.triplets(), strict=True):
            np.testing.assert_array_equal(tower, x[column[4 * index : 4 * index + 4]])


def test_roles_are_right_and_uniform():
    anchor, positive, negative = triplets(triplets_per_epoch=30_000).triplets()
    names = UNEVEN
    assert np.all(names[anchor] == names[positive])
    assert np.all(anchor != positive)
    assert np.all(names[anchor] != names[negative])
    assert np.ptp(np.bincount(anchor, minlength=11)[names != "bo"]) <= 1
    for one in (0, 1, 2):
        others = [i for i in range(11) if names[i] == names[one] and i != one]
        strangers = [i for i in range(11) if names[i] != names[one]]
        for column, allowed in ((positive, others), (negative, strangers)):
            got = column[anchor == one].tolist()
            assert set(got) == set(allowed)
            if len(allowed) > 1:
                assert chisquare([got.count(i) for i in allowed]).pvalue > 1e-4


def test_a_default_epoch_has_each_sample_that_can_be_as_anchor_once():
    anchor, _, _ = triplets().triplets(7)
    assert sorted(anchor.tolist()) == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10]
    assert triplets().singletons == 1


def test_balanced_weighting_gives_identities_equal_turns():
    anchor, _, _ = triplets(weighting="balanced", triplets_per_epoch=301).triplets()
    counts = np.unique(UNEVEN[anchor], return_counts=True)
    assert counts[0].tolist() == ["ada", "cy", "di"]
    assert np.ptp(counts[1]) <= 1


def test_augmentation_is_drawn_for_each_tower():
    sequence = TripletSequence(
        np.zeros(12), np.arange(12) // 2, batch_size=12, augment=lambda batch, rng: batch + rng.random(len(batch))
    )
    towers, _ = sequence[0]
    assert len(set(np.concatenate(towers).tolist())) == 36


@pytest.mark.deep
def test_a_siamese_network_learns_from_it(rng):
    labels = np.repeat(np.arange(10), 4)
    x = (rng.normal(size=(10, 6))[labels] + 0.3 * rng.normal(size=(40, 6))).astype("float32")
    encoder = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.UnitNormalization()])
    model = SiameseWrapper(encoder)
    model.compile(keras.optimizers.Adam(0.02), loss=losses.TripletLoss(margin=1.0))
    history = model.fit(TripletSequence(x, labels, batch_size=10), epochs=15, verbose=0).history["loss"]
    assert np.mean(history[-3:]) < 0.8 * np.mean(history[:3])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": range(6)}, "an identity with two samples; got 6 identities with one sample each"),
        ({"labels": [7] * 6}, "`labels` must have two identities; got only .*7"),
        ({"batch_size": 0}, "`batch_size` must be at least 1; got 0"),
        ({"triplets_per_epoch": 0}, "`triplets_per_epoch` must be at least 1; got 0"),
        ({"weighting": "even"}, "`weighting` must be one of 'natural', 'balanced'; got 'even'"),
        ({"frozen": True, "augment": lambda batch, rng: batch}, "`augment` must be None when frozen=True"),
    ],
)
def test_refuses(change, message):
    arguments = {"labels": [0, 0, 1, 1, 2, 2]} | change
    with pytest.raises(ValueError, match=message):
        TripletSequence(np.zeros((6, 2)), arguments.pop("labels"), **arguments)
    with pytest.raises(TypeError, match="no option 'pairs_per_epoch'; it knows x, labels, batch_size"):
        triplets(pairs_per_epoch=3)


# Hard partners


def test_refresh_draws_the_nearest_impostors_and_the_farthest_genuine():
    labels = np.array([0, 0, 0, 1, 1, 1, 2, 2, 2])
    place = np.array([[0.0], [1.0], [5.0], [2.0], [9.0], [9.5], [20.0], [21.0], [30.0]])
    pairs = PairSequence(np.arange(9), labels, pairs_per_epoch=400)
    before = np.stack(pairs.pairs(1))
    candidates = pairs.refresh(place, negative_ranks=(0, 1), positive_ranks=(0, 1))
    assert candidates.without_negatives == 0
    left, right, same = pairs.pairs(2)
    for a, b, alike in zip(left, right, same, strict=True):
        apart = np.abs(place - place[a])[:, 0]
        among = [i for i in range(9) if i != a and (labels[i] == labels[a]) == alike]
        assert apart[b] == (max if alike else min)(apart[among])
    pairs.refresh(None)
    np.testing.assert_array_equal(np.stack(pairs.pairs(1)), before)
    sequence = TripletSequence(np.arange(9), labels, triplets_per_epoch=100)
    sequence.refresh(place, negative_ranks=(1, 2), positive_ranks=(1, 2))
    for a, p, n in zip(*sequence.triplets(), strict=True):
        apart = np.abs(place - place[a])[:, 0]
        assert apart[p] == sorted(apart[i] for i in range(9) if i != a and labels[i] == labels[a])[0]
        assert apart[n] == sorted(apart[labels != labels[a]])[1]


def test_refresh_needs_a_sequence_that_draws():
    for options in ({"frozen": True}, {"pairs_per_epoch": "all"}):
        with pytest.raises(
            ValueError, match="`refresh` needs a sequence that draws new samples each epoch; got PairSequence"
        ):
            PairSequence(np.arange(11), UNEVEN, **options).refresh(np.zeros((11, 2)))
