"""BalancedBatchSequence: P identities of K samples that take turns, pure batches, the identities left out; batches of
few super-classes and of identities near each other."""

import pickle

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from keras_siamese import callbacks, losses
from keras_siamese.data import BalancedBatchSequence
from keras_siamese.data.grouping import draw_identities, draw_within

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


# Super-classes


SIZES = (3, 4, 2, 6, 3)  # identities of each super-class
ABOVE = np.repeat(np.arange(5), SIZES)  # the super-class of each of 18 identities


def hierarchy(samples=3, **options):
    """Identities in random order of codes, with `samples` each, and the super-class of each sample."""
    labels = np.repeat(np.random.default_rng(0).permutation(18), samples)
    options = {"classes": 6, "superclasses": ABOVE[labels], "batches_per_epoch": 60, **options}
    return indices_as_samples(labels, **options), labels


@pytest.mark.parametrize("several", [1, 2, 3])
def test_a_batch_has_identities_of_few_superclasses(several):
    sequence, labels = hierarchy(superclasses_per_batch=several)
    taking_part = [number for number, size in enumerate(SIZES) if size >= 6 // several]
    assert sequence.left_out == sum(size for number, size in enumerate(SIZES) if number not in taking_part)
    for batch in labels[sequence.rows(2)]:
        of_group = {group: set(batch[ABOVE[batch] == group].tolist()) for group in set(ABOVE[batch].tolist())}
        assert len(of_group) == several and set(of_group) <= set(taking_part)
        assert all(len(identities) == 6 // several for identities in of_group.values())
    visits = np.bincount(labels[sequence.rows(2)[:, ::2]].ravel(), minlength=18)
    for number in taking_part:
        assert np.ptp(visits[number == ABOVE]) <= 1
        assert visits[number == ABOVE].min() > 0


def test_names_of_superclasses_and_what_is_said_of_them():
    kinds = np.array(["cup", "fork", "cup", "cup", "fork", "pan"])
    labels = np.repeat(np.arange(6), 2)
    sequence = indices_as_samples(labels, 4, superclasses=kinds[labels])
    assert sequence.left_out == 1  # the pan
    assert repr(sequence).startswith(
        "BalancedBatchSequence(12 samples of 6 identities, 1 left out, 2 super-classes in a batch; 2 batches of 4 × 2"
    )


def test_superclasses_are_drawn_in_proportion_to_their_identities(rng):
    groups = [np.arange(4), np.arange(4, 12), np.arange(12, 36)]
    drawn = draw_within(rng, groups, 4000, 2, 1)
    got = np.bincount(np.digitize(drawn[:, 0], [4, 12]), minlength=3)
    assert chisquare(got, 4000 * np.array([4, 8, 24]) / 36).pvalue > 1e-4
    weights = np.where(np.arange(36) < 4, 8.0, 1.0)
    got = np.bincount(np.digitize(draw_within(rng, groups, 4000, 2, 1, weights)[:, 0], [4, 12]), minlength=3)
    assert chisquare(got, 4000 * np.array([32, 8, 24]) / 64).pvalue > 1e-4


def test_batches_of_superclasses_depend_on_seed_and_epoch_alone():
    one, other = hierarchy(seed=3)[0], hierarchy(seed=3)[0]
    other.rows(0)
    np.testing.assert_array_equal(one.rows(5), other.rows(5))
    assert not np.array_equal(one.rows(5), one.rows(6))


# Hard identities


CLUSTERS = np.arange(20) % 4  # of 20 identities, five in each
OFTEN = np.repeat(np.arange(20), 3)


def clustered(rng):
    """Embeddings of 20 identities in four clusters."""
    return (20 * np.eye(4)[CLUSTERS[OFTEN]] + rng.normal(size=(60, 4))).astype("float32")


def shown(sequence, epoch):
    """The identities of each batch of an epoch."""
    return OFTEN[sequence.rows(epoch)[:, ::2]]


@pytest.mark.parametrize(("classes", "clusters"), [(5, 1), (10, 2)])
def test_refreshed_batches_are_clusters(rng, classes, clusters):
    sequence = indices_as_samples(OFTEN, classes, batches_per_epoch=20)
    before = sequence.rows(3)
    near = sequence.refresh(clustered(rng), negative_ranks=(0, 4))
    assert np.all(CLUSTERS[near] == CLUSTERS[:, None])
    for batch in shown(sequence, 3):
        assert sorted(np.bincount(CLUSTERS[batch])[np.bincount(CLUSTERS[batch]) > 0]) == [5] * clusters
    assert np.ptp(np.bincount(shown(sequence, 3).ravel())) <= 1
    sequence.refresh(None)
    np.testing.assert_array_equal(sequence.rows(3), before)


def test_refreshed_batches_depend_on_seed_epoch_and_embeddings(rng):
    embeddings = clustered(rng)
    one, other = (indices_as_samples(OFTEN, 8, seed=4) for _ in range(2))
    for sequence in (one, other):
        sequence.refresh(embeddings)
    other.rows(0)
    np.testing.assert_array_equal(one.rows(5), other.rows(5))
    assert not np.array_equal(one.rows(5), one.rows(6))
    again = pickle.loads(pickle.dumps(one))
    np.testing.assert_array_equal(again.rows(5), one.rows(5))


def test_identities_that_take_no_part_are_not_near(rng):
    labels = np.concatenate([OFTEN, [20, 21]])
    sequence = indices_as_samples(labels, 5)
    embeddings = np.concatenate([clustered(rng), clustered(rng)[:2]])
    near = sequence.refresh(embeddings, negative_ranks=(0, 4))
    assert near.shape == (22, 4)
    assert np.all(near[20:] == -1) and near[:20].max() < 20 and near[:20].min() >= 0


@pytest.mark.parametrize(
    "options", [{"frozen": True}, {"weighting": "natural"}, {"superclasses": OFTEN % 2, "classes": 4}]
)
def test_what_cannot_be_refreshed(options):
    sequence = indices_as_samples(OFTEN, **options)
    with pytest.raises(ValueError, match="`refresh` needs a sequence that is not frozen and has superclasses=None and"):
        sequence.refresh(None)


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"superclasses": [0, 0, 0]}, "`superclasses` must have one entry for each of the 12 samples; got 3"),
        ({"superclasses": [0, 1] * 6}, r"one super-class for each identity; got 0 in 0 and 1$"),
        ({"superclasses_per_batch": 3}, "`superclasses_per_batch` must divide `classes_per_batch`, which is 4; got 3"),
        ({"superclasses_per_batch": 0}, "`superclasses_per_batch` must be at least 1; got 0"),
        (
            {"superclasses": [0] * 10 + [1] * 2},
            r"`superclasses_per_batch` must be at most 1, the number of super-classes with at least 2 identities that "
            r"take part \(of 2\); got 2",
        ),
        ({"superclasses": np.full(12, np.nan)}, "`superclasses` must be finite"),
    ],
)
def test_refuses_superclasses(change, message):
    labels = np.repeat(np.arange(6), 2)
    with pytest.raises(ValueError, match=message):
        indices_as_samples(labels, **{"classes": 4, "superclasses": labels // 3, **change})


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
