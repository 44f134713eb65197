"""Training batches: which batches are taken, and how their pairs are scored."""

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.facts.batches import batches_of, is_pairs, pair_outputs
from tests.support.measured import encoder


class Numbered:
    """A sequence whose batches are their own numbers."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return index, -index, "weights"


@pytest.mark.parametrize(("count", "taken"), [(1, [0]), (3, [0, 1, 2]), (11, [0, 2, 4, 6, 8, 10])])
def test_batches_are_spread_over_the_epoch(count, taken):
    assert batches_of(Numbered(count)) == [(place, -place) for place in taken]


def test_pairs_are_two_inputs():
    assert is_pairs((1, 2)) and is_pairs([1, 2]) and not is_pairs((1, 2, 3)) and not is_pairs(np.zeros((2, 3)))


def test_pairs_and_identities_are_scored_alike(rng):
    siamese = ks.SiameseWrapper(encoder())
    x = rng.normal(size=(4, 24)).astype("float32")
    left, right = np.triu_indices(4, 1)
    labels = np.array([7, 7, 9, 9])
    siamese((x[left], x[right]))
    pairs = pair_outputs(siamese, [((x[left], x[right]), 1 * (labels[left] != labels[right]))], similar_label=0)
    items = pair_outputs(siamese, [(x, labels)])
    assert pairs[0].tolist() == items[0].tolist() == [True, False, False, False, False, True]
    np.testing.assert_allclose(pairs[1], items[1], atol=1e-5)
    assert (pairs[1] <= 0).all()
