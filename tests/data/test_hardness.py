"""Hard candidates: the right samples at the right ranks, by a loop over sorted distances, and draws from them alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from keras_siamese import neighbours
from keras_siamese.data import PairSequence, TripletSequence, hardness
from keras_siamese.data.blocks import IdentityBlocks
from keras_siamese.data.hardness import HardCandidates

SIZES = (5, 1, 9, 2, 1, 7, 3)


def uneven(rng, sizes=SIZES, dim=4):
    codes = rng.permutation(np.repeat(np.arange(len(sizes)), sizes))
    return rng.normal(size=(len(codes), dim)) + rng.normal(size=dim) * 3, codes


def by_loop(embeddings, codes, negative_ranks, positive_ranks, skip_self=True, farthest_first=True):
    """For each sample, lists of negatives and positives: sort all others by distance, cut the ranks out."""
    negatives, positives = [], []
    for i in range(len(codes)):
        far = [float(np.sqrt(np.sum((embeddings[i] - embeddings[j]) ** 2))) for j in range(len(codes))]
        others = sorted((j for j in range(len(codes)) if codes[j] != codes[i]), key=lambda j: far[j])
        own = [j for j in range(len(codes)) if codes[j] == codes[i] and (j != i or not skip_self)]
        own = sorted(own, key=lambda j: -far[j] if farthest_first else far[j])
        negatives.append(others[slice(*negative_ranks)])
        positives.append(own[slice(*positive_ranks)])
    return negatives, positives


def lists(array):
    """The rows without their −1s, which must come last."""
    rows = [row[row >= 0].tolist() for row in array]
    assert all((row[len(kept) :] == -1).all() for row, kept in zip(array, rows, strict=True))
    return rows


@pytest.mark.parametrize(
    ("negative_ranks", "positive_ranks"),
    [
        ((0, 50), (0, 5)),
        ((0, 3), (0, 1)),
        ((2, 7), (1, 3)),
        ((10, 19), (0, 100)),
        ((0, 1), (6, 9)),
        ((200, 201), (90, 95)),
    ],
)
def test_candidates_against_the_loop(rng, negative_ranks, positive_ranks):
    embeddings, codes = uneven(rng)
    candidates = HardCandidates.from_embeddings(embeddings, codes, negative_ranks, positive_ranks)
    negatives, positives = by_loop(embeddings, codes, negative_ranks, positive_ranks)
    assert lists(candidates.negatives) == negatives
    assert lists(candidates.positives) == positives
    assert candidates.negatives.dtype == candidates.positives.dtype == np.int32
    assert candidates.without_negatives == sum(not row for row in negatives)
    size = np.bincount(codes)[codes]
    assert candidates.without_positives == sum(not row and m > 1 for row, m in zip(positives, size, strict=True))


def test_the_loop_rejects_broken_searches(rng):
    embeddings, codes = uneven(rng)
    _, positives = by_loop(embeddings, codes, (0, 3), (0, 3))
    found = lists(HardCandidates.from_embeddings(embeddings, codes, (0, 3), (0, 3)).positives)
    assert found == positives
    assert found != by_loop(embeddings, codes, (0, 3), (0, 3), farthest_first=False)[1]
    assert (
        by_loop(embeddings, codes, (0, 3), (0, 9))[1] != by_loop(embeddings, codes, (0, 3), (0, 9), skip_self=False)[1]
    )
    negatives = lists(HardCandidates.from_embeddings(embeddings, codes, (1, 4), (0, 3)).negatives)
    assert negatives != by_loop(embeddings, codes, (0, 3), (0, 3))[0]


@pytest.mark.parametrize(("large", "block", "searched"), [(2, 1 << 22, 1 << 24), (64, 7, 100), (4, 20, 1)])
def test_blocks_and_large_identities_change_nothing(rng, monkeypatch, large, block, searched):
    embeddings, codes = uneven(rng)
    expected = by_loop(embeddings, codes, (1, 6), (0, 3))
    monkeypatch.setattr(hardness, "_LARGE", large)
    monkeypatch.setattr(hardness, "_BLOCK", block)
    monkeypatch.setattr(neighbours, "BLOCK", searched)
    candidates = HardCandidates.from_embeddings(embeddings, codes, (1, 6), (0, 3))
    assert (lists(candidates.negatives), lists(candidates.positives)) == expected


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32 - 1), st.lists(st.integers(1, 6), min_size=1, max_size=6))
def test_moving_or_scaling_embeddings_changes_no_candidate(seed, sizes):
    rng = np.random.default_rng(seed)
    embeddings, codes = uneven(rng, sizes)
    one = HardCandidates.from_embeddings(embeddings, codes, (0, 3), (0, 2))
    moved = HardCandidates.from_embeddings(4 * embeddings + 8, codes, (0, 3), (0, 2))
    for name in ("negatives", "positives"):
        chosen, again = getattr(one, name), getattr(moved, name)
        np.testing.assert_array_equal(chosen >= 0, again >= 0)
        for i, (a, b) in enumerate(zip(chosen, again, strict=True)):
            far = np.linalg.norm(embeddings - embeddings[i], axis=1)
            np.testing.assert_allclose(far[a[a >= 0]], far[b[b >= 0]], rtol=1e-4)


def test_neighbours_far_from_the_origin_keep_their_order():
    """In float32, differences of 0.01 are lost beside squares near 1e8."""
    embeddings = 10_000 + np.array([[0.0], [0.02], [0.05], [0.09], [0.14]])
    apart = HardCandidates.from_embeddings(embeddings, np.array([0, 1, 1, 1, 1]), (0, 4), (0, 4))
    assert apart.negatives[0].tolist() == [1, 2, 3, 4]
    together = HardCandidates.from_embeddings(embeddings, np.zeros(5, dtype=int), (0, 4), (0, 4))
    assert together.positives[0].tolist() == [4, 3, 2, 1]


# Draws


def test_draws_are_uniform_among_the_candidates(rng):
    embeddings, codes = uneven(rng)
    candidates = HardCandidates.from_embeddings(embeddings, codes, (0, 4), (0, 2))
    negatives, positives = by_loop(embeddings, codes, (0, 4), (0, 2))
    anchor = int(np.flatnonzero(codes == 2)[0])
    for draw, expected in ((candidates.draw_other, negatives), (candidates.draw_same, positives)):
        drawn = draw(rng, np.full(4000, anchor))
        values, counts = np.unique(drawn, return_counts=True)
        assert values.tolist() == sorted(expected[anchor])
        assert chisquare(counts).pvalue > 1e-4


def test_each_anchor_draws_its_own_candidates(rng):
    embeddings, codes = uneven(rng)
    candidates = HardCandidates.from_embeddings(embeddings, codes, (1, 3), (0, 1))
    negatives, positives = by_loop(embeddings, codes, (1, 3), (0, 1))
    anchors = rng.permutation(np.tile(np.arange(len(codes)), 3))
    for anchor, partner in zip(anchors, candidates.draw_other(rng, anchors), strict=True):
        assert partner in negatives[anchor]
    paired = anchors[np.bincount(codes)[codes[anchors]] > 1]
    for anchor, partner in zip(paired, candidates.draw_same(rng, paired), strict=True):
        assert partner in positives[anchor]


def test_without_candidates_the_draw_is_uniform(rng):
    embeddings, codes = uneven(rng)
    candidates = HardCandidates.from_embeddings(embeddings, codes, (26, 28), (4, 6))
    negatives, _ = by_loop(embeddings, codes, (26, 28), (4, 6))
    assert candidates.without_negatives == sum(not row for row in negatives) > 0
    bare = [i for i, row in enumerate(negatives) if not row]
    drawn = candidates.draw_other(rng, np.repeat(bare[0], 6000))
    others = np.flatnonzero(codes != codes[bare[0]])
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == others.tolist()
    assert chisquare(counts).pvalue > 1e-4
    anchor = int(np.flatnonzero(codes == 6)[0])  # three samples: none at rank 4
    partners = set(candidates.draw_same(rng, np.repeat(anchor, 200)).tolist())
    assert partners == set(np.flatnonzero(codes == 6).tolist()) - {anchor}
    assert "without negatives" in repr(candidates)


def test_no_anchors_draw_nothing(rng):
    embeddings, codes = uneven(rng)
    assert len(HardCandidates.from_embeddings(embeddings, codes).draw_other(rng, np.empty(0, dtype=int))) == 0


# Sequences


@pytest.mark.parametrize("make", [PairSequence, TripletSequence])
def test_sequences_draw_hard_partners_after_a_refresh(rng, make):
    embeddings, codes = uneven(rng)
    negatives, positives = by_loop(embeddings, codes, (0, 2), (0, 1))
    sequence = make(np.arange(len(codes)), codes, batch_size=8)
    before = sequence[0]
    sequence.refresh(embeddings, negative_ranks=(0, 2), positive_ranks=(0, 1))
    after = sequence[0]  # the epoch's table, drawn before, is drawn anew
    assert not all(np.array_equal(a, b) for a, b in zip(before[0], after[0], strict=True))
    for index in range(len(sequence)):
        towers, same = sequence[index]
        if make is TripletSequence:
            for anchor, positive, negative in zip(*towers, strict=True):
                assert positive in positives[anchor]
                assert negative in negatives[anchor]
        else:
            for left, right, is_same in zip(*towers, same, strict=True):
                assert right in (positives if is_same else negatives)[left]
    sequence.refresh(None)
    for a, b in zip(before[0], sequence[0][0], strict=True):
        np.testing.assert_array_equal(a, b)


# Errors and progress


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_embeddings_must_be_finite(rng, bad):
    embeddings, codes = uneven(rng)
    embeddings[[3, 8], 1] = bad
    with pytest.raises(ValueError, match="`embeddings` must be finite; 2 of its 28 rows"):
        HardCandidates.from_embeddings(embeddings, codes)


def test_embeddings_must_fit_the_codes(rng):
    embeddings, codes = uneven(rng)
    with pytest.raises(ValueError, match="`embeddings` must have one row for each of the 28 samples; got 27"):
        HardCandidates.from_embeddings(embeddings[:27], codes)
    with pytest.raises(
        ValueError, match=r"`embeddings` must be real, of shape \(n, dim\); got float64 of shape \(28,\)"
    ):
        HardCandidates.from_embeddings(embeddings[:, 0], codes)


@pytest.mark.parametrize(
    ("ranks", "error", "message"),
    [
        ((3, 3), ValueError, r"`negative_ranks\[1\]` must be at least 4; got 3"),
        ((-1, 3), ValueError, r"`negative_ranks\[0\]` must be at least 0; got -1"),
        (5, ValueError, r"`negative_ranks` must be \(lo, hi\); got 5"),
        ((0, 2.5), TypeError, r"`negative_ranks\[1\]` must be an integer"),
    ],
)
def test_ranks_must_be_ranges(rng, ranks, error, message):
    embeddings, codes = uneven(rng)
    with pytest.raises(error, match=message):
        HardCandidates.from_embeddings(embeddings, codes, ranks)


def test_one_identity_has_no_negatives(rng):
    candidates = HardCandidates.from_embeddings(rng.normal(size=(70, 2)), np.zeros(70, dtype=int))
    assert candidates.without_negatives == 70
    assert candidates.without_positives == 0


def test_a_bar_shows_only_where_it_takes_long(rng, monkeypatch, capsys):
    embeddings, codes = uneven(rng)
    HardCandidates.from_embeddings(embeddings, codes)
    assert capsys.readouterr().out == ""
    monkeypatch.setattr(hardness, "_SHOW_AFTER", -1.0)
    HardCandidates.from_embeddings(embeddings, codes)
    assert "56/56" in capsys.readouterr().out


def test_blocks_are_those_of_the_codes(rng):
    embeddings, codes = uneven(rng)
    candidates = HardCandidates.from_embeddings(embeddings, codes, (500, 501), (500, 501))
    anchors, blocks = np.arange(len(codes)), IdentityBlocks(codes)
    drawn = candidates.draw_other(np.random.default_rng(1), anchors)
    generator = np.random.default_rng(1)
    generator.integers(0, np.ones(len(codes), dtype=int))  # the draw among candidates, of which there are none
    np.testing.assert_array_equal(drawn, blocks.draw_other(generator, anchors))
