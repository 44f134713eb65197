"""Draws of anchors and partners by identity: which samples may be drawn, and how often."""

import numpy as np
import pytest

from keras_siamese.data.blocks import IdentityBlocks, draw_anchors

CODES = np.array([1, 0, 1, 2, 0, 1])


def test_blocks_skip_the_anchor_and_its_identity(rng):
    blocks = IdentityBlocks(CODES)
    for anchor in range(6):
        anchors = np.full(300, anchor)
        assert set(blocks.draw_other(rng, anchors).tolist()) == {i for i in range(6) if CODES[i] != CODES[anchor]}
        if anchor != 3:
            assert set(blocks.draw_same(rng, anchors).tolist()) == {
                i for i in range(6) if i != anchor and CODES[i] == CODES[anchor]
            }
    assert blocks.paired.tolist() == [0, 1, 2, 4, 5]


def test_samples_of_an_identity_are_drawn_evenly(rng):
    blocks = IdentityBlocks(CODES)
    assert blocks.size.tolist() == [2, 3, 1]
    drawn = np.bincount(blocks.draw_from(rng, np.repeat([0, 1, 2], 3000)), minlength=6)
    np.testing.assert_allclose(drawn, [1000, 1500, 1000, 3000, 1500, 1000], rtol=0.12)


@pytest.mark.parametrize("paired", [False, True])
@pytest.mark.parametrize("count", [0, 1, 5, 12, 17])
def test_natural_anchors_are_each_sample_equally_often(rng, count, paired):
    anchors = draw_anchors(rng, IdentityBlocks(CODES), count, paired=paired)
    assert anchors.shape == (count,)
    used = np.bincount(anchors, minlength=6)
    allowed = np.array([True, True, True, not paired, True, True])
    assert not used[~allowed].any()
    assert np.ptp(used[allowed]) <= 1


def test_balanced_anchors_are_each_identity_equally_often(rng):
    blocks = IdentityBlocks(CODES)
    all_of_them = draw_anchors(rng, blocks, 31, "balanced")
    assert sorted(np.bincount(CODES[all_of_them]).tolist()) == [10, 10, 11]
    paired = draw_anchors(rng, blocks, 30, "balanced", paired=True)
    assert np.bincount(CODES[paired], minlength=3).tolist() == [15, 15, 0]


def test_anchors_begin_with_the_samples_that_were_used_less(rng):
    blocks = IdentityBlocks(CODES)
    anchors = draw_anchors(rng, blocks, 8, after=np.array([0, 1, 1, 0, 2]))
    assert sorted(anchors[:4].tolist()) == [2, 3, 4, 5]
    assert len(anchors) == 8
    assert sorted(draw_anchors(rng, blocks, 6, after=np.arange(6)).tolist()) == list(range(6))
