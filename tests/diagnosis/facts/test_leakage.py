"""What training and held-out data share."""

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.facts.leakage import shared_auc
from tests.support import plantings
from tests.support.measured import encoder, facts_of


def test_equal_names_mean_the_same_only_where_samples_are_near(rng):
    centres = rng.normal(size=(40, 8))
    names = np.repeat(np.arange(20), 4)
    train = centres[names] + 0.3 * rng.normal(size=(80, 8))
    leaked = centres[names] + 0.3 * rng.normal(size=(80, 8))
    renumbered = centres[names + 20] + 0.3 * rng.normal(size=(80, 8))
    assert shared_auc(train, names, leaked, names) > 0.95
    assert shared_auc(train, names, renumbered, names) == pytest.approx(0.5, abs=0.12)
    assert shared_auc(train, names, leaked, names + 100) is None
    assert shared_auc(train, names, leaked, np.array([f"p{name}" for name in names])) is None


def test_a_leak_of_samples_and_of_identities_is_measured():
    x, labels = plantings.held_out_part()
    facts = facts_of(ks.SiameseWrapper(encoder()), (x, labels))
    assert facts["duplicates"] == 1.0 and facts["shared_names"] == 10 and facts["shared_auc"] > 0.6
