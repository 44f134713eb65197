"""PairSequence: pure batches, exact fractions, uniform partners, correct labels."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from keras_siamese.data import PairSequence

NAMES = np.array(["ada", "bo", "cy", "di"])
UNEVEN = NAMES[[2, 0, 3, 1, 3, 2, 3, 0, 3, 2, 3]]  # ada 2, bo 1, cy 3, di 5, mixed up


def indices_as_samples(labels, **options):
    """A sequence whose samples are their own indices, so that a batch shows which samples it has."""
    return PairSequence(np.arange(len(labels)), labels, **options)


def assert_batches_equal(first, second):
    for one, other in zip(first, second, strict=True):
        for a, b in zip([*one[0], one[1]], [*other[0], other[1]], strict=True):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)


# What a batch is


def test_batch_is_tuples_of_gathered_samples():
    x = np.arange(11 * 6, dtype="float32").reshape(11, 2, 3)
    sequence = PairSequence(x, UNEVEN, batch_size=4, pairs_per_epoch=10)
    left_index, right_index, same = sequence.pairs()
    assert len(sequence) == 3
    for index, size in enumerate([4, 4, 2]):
        batch = sequence[index]
        rows = slice(4 * index, 4 * index + 4)
        assert type(batch) is tuple
        assert type(batch[0]) is tuple
        (left, right), labels = batch
        assert left.shape == right.shape == (size, 2, 3)
        assert labels.shape == (size,)
        assert labels.dtype == np.float32
        assert left.dtype == x.dtype
        np.testing.assert_array_equal(left, x[left_index[rows]])
        np.testing.assert_array_equal(right, x[right_index[rows]])
        np.testing.assert_array_equal(labels, same[rows])


@pytest.mark.parametrize("similar_label", [1, 0])
def test_labels_are_right_by_the_labels_as_given(similar_label):
    sequence = indices_as_samples(UNEVEN, batch_size=5, pairs_per_epoch=500, similar_label=similar_label)
    for (left, right), same in sequence:
        expected = [
            similar_label if UNEVEN[a] == UNEVEN[b] else 1 - similar_label for a, b in zip(left, right, strict=True)
        ]
        assert same.tolist() == expected


def test_dicts_stay_dicts_and_rows_stay_together():
    x = {"image": np.arange(22).reshape(11, 2), "meta": {"row": np.arange(11)}}
    sequence = PairSequence(x, UNEVEN, batch_size=4)
    (left, right), _ = sequence[0]
    for tower, index in zip((left, right), sequence.pairs(), strict=False):
        assert list(tower) == ["image", "meta"]
        np.testing.assert_array_equal(tower["meta"]["row"], index[:4])
        np.testing.assert_array_equal(tower["image"][:, 0], 2 * index[:4])


def test_memory_mapped_source(tmp_path):
    x = np.lib.format.open_memmap(tmp_path / "x.npy", mode="w+", dtype="float32", shape=(11, 3))
    x[:] = np.arange(33).reshape(11, 3)
    sequence = PairSequence(x, UNEVEN, batch_size=4)
    assert np.shares_memory(sequence.x, x)
    np.testing.assert_array_equal(sequence[0][0][0], np.array(x)[sequence.pairs()[0][:4]])


def test_attributes_and_repr():
    sequence = indices_as_samples(UNEVEN, batch_size=4, positive_fraction=0.25, pairs_per_epoch=10)
    np.testing.assert_array_equal(sequence.identities[sequence.labels], UNEVEN)
    assert sequence.singletons == 1
    assert sequence.positive_fraction == 0.25
    assert repr(sequence) == (
        "PairSequence(11 samples of 4 identities (1 with a single one); 10 pairs an epoch, 25% same, "
        "in 3 batches of 4; epoch 0)"
    )
    assert "; frozen)" in repr(indices_as_samples(UNEVEN, frozen=True))
    assert indices_as_samples(UNEVEN).pairs_per_epoch == 11


def test_batch_indices_are_those_of_a_sequence():
    sequence = indices_as_samples(UNEVEN, batch_size=4)
    assert_batches_equal([sequence[-1]], [sequence[2]])
    for index in (3, -4):
        with pytest.raises(IndexError):
            sequence[index]
    assert len(list(sequence)) == 3


def test_table_is_small_and_cannot_be_changed():
    table = indices_as_samples(UNEVEN, pairs_per_epoch=1000).pairs()
    assert sum(column.nbytes for column in table) == 17_000
    with pytest.raises(ValueError, match="read-only"):
        table[0][0] = 1


# Purity


def sequences(**options):
    return indices_as_samples(np.arange(60) // 4, batch_size=7, seed=3, **options)


def test_epochs_and_seeds_differ_and_do_not_collide():
    tables = {}
    for seed, epoch in itertools.product(range(4), range(4)):
        tables[seed, epoch] = np.stack(indices_as_samples(np.arange(60) // 4, seed=seed).pairs(epoch)).tobytes()
    assert len(set(tables.values())) == 16
    wide = indices_as_samples(np.arange(60) // 4, seed=2**32 + 1).pairs(0)  # two words of entropy
    assert np.stack(wide).tobytes() not in tables.values()


def test_frozen_ignores_the_epoch():
    frozen = sequences(frozen=True)
    first = list(frozen)
    frozen.set_epoch(7)
    assert frozen.epoch == 7
    assert_batches_equal(list(frozen), first)
    assert_batches_equal(list(frozen), list(sequences()))
    np.testing.assert_array_equal(frozen.pairs(3), frozen.pairs(9))


# Which pairs


@settings(max_examples=150, deadline=None)
@given(
    sizes=st.lists(st.integers(1, 5), min_size=2, max_size=9).filter(lambda sizes: max(sizes) > 1),
    batch_size=st.integers(1, 40),
    pairs=st.integers(1, 130),
    fraction=st.floats(0, 1),
    seed=st.integers(0, 2**64),
)
def test_fractions_are_exact_and_pairs_are_pairs(sizes, batch_size, pairs, fraction, seed):
    labels = np.repeat(np.arange(len(sizes)), sizes)
    sequence = indices_as_samples(
        labels, batch_size=batch_size, pairs_per_epoch=pairs, positive_fraction=fraction, seed=seed
    )
    left, right, same = sequence.pairs(1)
    assert len(left) == len(right) == len(same) == pairs
    assert abs(same.sum() - fraction * pairs) <= 0.5 + 1e-9
    for start in range(0, pairs, batch_size):
        batch = same[start : start + batch_size]
        assert abs(batch.sum() - fraction * len(batch)) <= 1 + 1e-9
    assert np.all(left != right)
    np.testing.assert_array_equal(labels[left] == labels[right], same)

    anchors = np.bincount(left, minlength=len(labels))
    if min(sizes) > 1:
        assert anchors.max() - anchors.min() <= 1


def test_each_sample_is_anchor_once_in_a_default_epoch_also_with_singletons():
    left, _, same = indices_as_samples(UNEVEN).pairs(5)
    assert sorted(left.tolist()) == list(range(11))
    assert same.sum() == 6  # 5.5, rounded up


def test_genuine_anchors_change_from_epoch_to_epoch():
    sequence = indices_as_samples(np.arange(12) // 2)
    genuine = np.zeros(12)
    for epoch in range(1500):
        left, _, same = sequence.pairs(epoch)
        np.add.at(genuine, left[same], 1)
    assert chisquare(genuine).pvalue > 1e-4


def test_positives_are_shuffled_within_their_batch():
    sequence = indices_as_samples(np.arange(400) // 4, batch_size=8, pairs_per_epoch=4000)
    per_place = sequence.pairs()[2].reshape(-1, 8).sum(axis=0)
    assert chisquare(per_place).pvalue > 1e-4


def allowed_partners(labels, anchor, same):
    """All other samples whose label is, or is not, that of the anchor, by enumeration."""
    return [i for i in range(len(labels)) if i != anchor and (labels[i] == labels[anchor]) == same]


def worst_fit(labels, left, right, same):
    """The smallest chi-square p-value over anchors and both kinds of pair, against equally likely allowed partners."""
    p_values = []
    for anchor, kind in itertools.product(range(len(labels)), (True, False)):
        got = right[(left == anchor) & (same == kind)].tolist()
        allowed = allowed_partners(labels, anchor, kind)
        if set(got) - set(allowed):
            return 0.0
        if len(allowed) > 1:
            p_values.append(chisquare([got.count(partner) for partner in allowed]).pvalue)
    return min(p_values)


def test_partners_are_uniform():
    left, right, same = indices_as_samples(UNEVEN, pairs_per_epoch=40_000).pairs()
    assert worst_fit(UNEVEN, left, right, same) > 1e-4


def test_the_oracle_rejects_partners_that_are_not_uniform():
    left, right, same = (np.array(column) for column in indices_as_samples(UNEVEN, pairs_per_epoch=40_000).pairs())
    next_di = {2: 4, 4: 6, 6: 8, 8: 10, 10: 2}
    half = np.flatnonzero(same & np.isin(left, list(next_di)))[::2]
    right[half] = [next_di[anchor] for anchor in left[half]]
    assert worst_fit(UNEVEN, left, right, same) < 1e-10


# Balanced, exhaustive and weighted pairs


def test_exhaustive_pairs_come_once_each():
    frozen = PairSequence(np.arange(11), UNEVEN, batch_size=8, pairs_per_epoch="all", frozen=True)
    left, right, same = frozen.pairs()
    assert list(zip(left.tolist(), right.tolist(), strict=True)) == list(itertools.combinations(range(11), 2))
    np.testing.assert_array_equal(same, UNEVEN[left] == UNEVEN[right])
    assert len(frozen) == 7
    assert frozen.positive_fraction == pytest.approx(same.mean())
    drawn = PairSequence(np.arange(11), UNEVEN, batch_size=8, pairs_per_epoch="all")
    orders = {np.stack(drawn.pairs(epoch)).tobytes() for epoch in range(3)}
    assert len(orders) == 3
    for epoch in range(3):
        found = {tuple(sorted(pair)) for pair in np.stack(drawn.pairs(epoch)[:2]).T.tolist()}
        assert found == set(itertools.combinations(range(11), 2))
    # A single identity has pairs, and so do identities with one sample each.
    assert PairSequence(np.arange(3), [5, 5, 5], pairs_per_epoch="all").pairs()[2].all()
    assert not PairSequence(np.arange(3), [5, 6, 7], pairs_per_epoch="all").pairs()[2].any()


def test_exhaustive_is_spelt_all():
    with pytest.raises(ValueError, match="`pairs_per_epoch` must be one of 'all'; got 'every'"):
        PairSequence(np.arange(11), UNEVEN, pairs_per_epoch="every")
    with pytest.raises(ValueError, match="`pairs_per_epoch` must be at least 1; got 0"):
        PairSequence(np.arange(1), ["ada"], pairs_per_epoch="all")
    for options in ({"positive_fraction": 0.3}, {"weighting": "balanced"}):
        with pytest.raises(ValueError, match="has every pair once, so it allows no `positive_fraction`"):
            PairSequence(np.arange(11), UNEVEN, pairs_per_epoch="all", **options)


@pytest.mark.parametrize("kind", ["balanced", "identities"])
def test_pairs_with_sample_weights(kind):
    plain = PairSequence(np.arange(11), UNEVEN, batch_size=4, positive_fraction=0.2, pairs_per_epoch=60, seed=2)
    weighted = PairSequence(
        np.arange(11), UNEVEN, batch_size=4, positive_fraction=0.2, pairs_per_epoch=60, seed=2, sample_weight=kind
    )
    batches = [weighted[i] for i in range(len(weighted))]
    weight = np.concatenate([batch[2] for batch in batches])
    left, right, same = weighted.pairs()
    np.testing.assert_array_equal(np.concatenate([batch[1] for batch in batches]), same)
    np.testing.assert_array_equal(np.stack(plain.pairs()), np.stack(weighted.pairs()))
    assert weight.dtype == np.float32
    assert weight.mean() == pytest.approx(1.0, rel=1e-5)
    if kind == "balanced":
        assert weight[same].sum() == pytest.approx(weight[~same].sum(), rel=1e-5)
    else:
        appearances = {name: int(np.sum(UNEVEN[left] == name) + np.sum(UNEVEN[right] == name)) for name in set(UNEVEN)}
        expected = [
            (30 / appearances[UNEVEN[a]] + 30 / appearances[UNEVEN[b]]) / 2 for a, b in zip(left, right, strict=True)
        ]
        np.testing.assert_allclose(weight, expected, rtol=1e-5)


def test_balanced_weighting_gives_identities_equal_turns():
    sequence = PairSequence(np.arange(11), UNEVEN, weighting="balanced", pairs_per_epoch=4000)
    left, right, same = sequence.pairs()
    assert np.ptp(np.unique(UNEVEN[left[same]], return_counts=True)[1]) <= 1
    assert np.ptp(np.unique(UNEVEN[left[~same]], return_counts=True)[1]) <= 1
    np.testing.assert_array_equal(UNEVEN[left] == UNEVEN[right], same)
    samples_of_di = np.bincount(left[same], minlength=11)[UNEVEN == "di"]
    assert chisquare(samples_of_di).pvalue > 1e-4


def test_unknown_kinds_of_weights_are_refused():
    with pytest.raises(ValueError, match="`sample_weight` must be one of None, 'balanced', 'identities'; got 'even'"):
        PairSequence(np.zeros((11, 2)), UNEVEN, sample_weight="even")


# Bad input


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [7] * 6}, r"two identities \(positive_fraction=0.5\); got only .*7"),
        (
            {"labels": range(6)},
            r"identity with two samples \(positive_fraction=0.5\); got 6 identities with one sample each",
        ),
        ({"labels": [0, 0, 1]}, "`labels` must have one entry for each of the 6 samples; got 3"),
        ({"labels": np.zeros((6, 2))}, r"`labels` must have shape \(n,\).*\(6, 2\)"),
        ({"positive_fraction": 1.5}, r"`positive_fraction` must be in \[0, 1\]; got 1.5"),
        ({"positive_fraction": float("nan")}, r"`positive_fraction` must be in \[0, 1\]; got nan"),
        ({"batch_size": 0}, "`batch_size` must be at least 1; got 0"),
        ({"pairs_per_epoch": 0}, "`pairs_per_epoch` must be at least 1; got 0"),
        ({"similar_label": 2}, "`similar_label` must be one of 0, 1; got 2"),
        ({"seed": -3}, "`seed` must be at least 0; got -3"),
        ({"x": np.array([[0], [1], [2], [3], [4], [np.nan]])}, "`x` must be finite; 1 of its 6 samples"),
        ({"x": {"a": np.full((6, 2), np.inf)}}, r"`x\['a'\]` must be finite; 6 of its 6 samples"),
        ({"x": {"a": np.zeros(6), "b": {"c": np.zeros(4)}}}, r"one length; got x\['a'\] 6, x\['b'\]\['c'\] 4"),
        ({"x": np.zeros((0, 3)), "labels": []}, "`x` must hold at least one sample"),
        ({"x": 3.0}, "`x` must be an array with samples along its first axis"),
        ({"frozen": True, "augment": lambda batch, rng: batch}, "`augment` must be None when frozen=True"),
    ],
)
def test_refuses(change, message):
    arguments = {"x": np.zeros((6, 2)), "labels": [0, 0, 1, 1, 2, 2]} | change
    with pytest.raises(ValueError, match=message):
        PairSequence(arguments.pop("x"), arguments.pop("labels"), **arguments)


def test_refuses_unknown_options_and_lists_the_known():
    with pytest.raises(TypeError, match=r"no option 'batchsize'; it knows x, labels, batch_size, .*max_queue_size"):
        indices_as_samples(UNEVEN, batchsize=4)
    with pytest.raises(TypeError, match=r"`epoch` must be an integer; got 1\.5"):
        indices_as_samples(UNEVEN).set_epoch(1.5)
    sequence = indices_as_samples(UNEVEN, workers=2, use_multiprocessing=True, max_queue_size=3)
    assert (sequence.workers, sequence.use_multiprocessing, sequence.max_queue_size) == (2, True, 3)


def test_what_is_not_asked_for_need_not_exist():
    assert indices_as_samples([7] * 6, positive_fraction=1).pairs()[2].all()
    assert not indices_as_samples(range(6), positive_fraction=0).pairs()[2].any()
