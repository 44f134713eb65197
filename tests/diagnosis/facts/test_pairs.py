"""What training is shown: shares of identities, kinds of pairs, mined triplets."""

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.facts.pairs import effective_count, largest_share, mined_order
from tests.support import plantings
from tests.support.measured import encoder, facts_of


def test_shares_of_identities():
    assert effective_count([10, 10, 10, 10]) == 4.0
    assert effective_count([1000, 1, 1]) == pytest.approx(1.0, abs=0.01)
    assert largest_share([45, 45, 5, 5]) == 0.9
    assert largest_share([1, 3], of=1) == 0.75


def test_mined_triplets_in_order_equal_a_loop(rng):
    z, labels = rng.normal(size=(12, 3)).astype("float32"), np.repeat([0, 1, 2], 4)
    distance = ks.distances.get("euclidean")
    matrix = np.linalg.norm(z[:, None] - z[None], axis=2)
    for positives, pick_near in (("hard", max), ("easy", min)):
        for negatives, pick_far in (("hard", min), ("easy", max)):
            expected = []
            for a in range(12):
                near = [matrix[a, p] for p in range(12) if p != a and labels[p] == labels[a]]
                far = [matrix[a, n] for n in range(12) if labels[n] != labels[a]]
                expected.append(float(pick_near(near) < pick_far(far)))
            assert mined_order(distance.matrix, z, labels, positives, negatives) == expected


def test_facts_of_a_pair_run_name_its_make_up():
    x, labels = plantings.train_part()
    sequence = ks.data.PairSequence(x, labels, batch_size=50, positive_fraction=0.25)
    model = ks.SiameseWrapper(encoder())
    loss = ks.losses.ContrastiveLoss(margin=0.5)
    facts = facts_of(model, (x, labels), sequence, loss=loss, positive_fraction=0.25, bounds=model.bounds)
    assert facts["weighted_positive_fraction"] == 0.25 and facts["margin"] == 0.5 and facts["reach"] == 2.0
    assert facts["drawn_identities"] == 60 and facts["share_of_two"] < 0.1
    assert facts["batch_identities"] > 30 and facts["duplicates"] == 0.0
    assert abs(facts["drawn_towers"]) < 0.1 and facts["input_scale"] == pytest.approx(2.0, abs=0.3)
    assert facts["untrained_eer"] > 0.2 and facts["unshared"] == 0.0
    assert facts.words["loss"] == "ContrastiveLoss"
    assert all(isinstance(value, float) for value in facts.numbers.values())
