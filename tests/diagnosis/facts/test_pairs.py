"""What training is shown: shares of identities, kinds of pairs, mined triplets."""

from types import SimpleNamespace

import numpy as np
import pytest

import keras_siamese as ks
from keras_siamese.diagnosis.facts.pairs import (
    batch_identities,
    chance_error,
    codes_of,
    crossed_eer,
    drawn_counts,
    effective_count,
    largest_share,
    make_up,
    mined_order,
    weighted_fraction,
)
from tests.support import plantings
from tests.support.measured import encoder, facts_of


def test_shares_of_identities():
    assert effective_count([10, 10, 10, 10]) == 4.0
    assert effective_count([5, 5, 0]) == 2.0
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


def test_all_positives_or_negatives_equal_a_loop(rng):
    z, labels = rng.normal(size=(9, 3)).astype("float32"), np.repeat([0, 1, 2], [4, 3, 2])
    distance = ks.distances.get("euclidean")
    matrix = np.linalg.norm(z[:, None] - z[None], axis=2)
    near = [[matrix[a, p] for p in range(9) if p != a and labels[p] == labels[a]] for a in range(9)]
    far = [[matrix[a, n] for n in range(9) if labels[n] != labels[a]] for a in range(9)]
    shares = [np.mean([one < min(others) for one in own]) for own, others in zip(near, far, strict=True)]
    assert mined_order(distance.matrix, z, labels, "all", "hard") == pytest.approx(shares)
    each = [float(max(own) < one) for own, others in zip(near, far, strict=True) for one in others]
    assert mined_order(distance.matrix, z, labels, "hard", "all") == each
    assert mined_order(distance.matrix, z, labels, "all", "semi_hard") == []


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


def test_weights_of_the_loss_shift_the_share_of_genuine_pairs():
    def fraction(loss, of=0.2):
        return weighted_fraction(SimpleNamespace(positive_fraction=of, loss=loss))

    assert fraction(None) == 0.2 and fraction(None, of=None) is None
    assert fraction(ks.losses.ContrastiveLoss(positive_weight=4.0)) == pytest.approx(0.5)
    assert fraction(ks.losses.ContrastiveLoss(negative_weight=4.0)) == pytest.approx(0.2 / 3.4)
    assert fraction(ks.losses.ContrastiveLoss(positive_weight=0.0, negative_weight=0.0)) == 0.2
    weighted = ks.losses.WeightedBinaryCrossentropy
    assert fraction(weighted(class_weight={0: 1.0, 1: 2.0})) == pytest.approx(0.4 / 1.2)
    assert fraction(weighted(class_weight={0: 1.0, 1: 2.0}, similar_label=0)) == pytest.approx(0.2 / 1.8)
    assert fraction(weighted(class_weight="balanced")) == 0.5
    assert fraction(weighted(class_weight="balanced"), of=None) is None


def test_identities_that_are_drawn_and_those_of_one_batch():
    labels = np.array([0, 0, 1, 1, 2, 2])
    pairs = SimpleNamespace(
        labels=labels, batch_size=2, pairs=lambda: (np.array([0, 0, 2, 4]), np.array([1, 2, 3, 5]), None)
    )
    assert drawn_counts(pairs).tolist() == [3, 3, 2]
    together, apart = (SimpleNamespace(model=SimpleNamespace(joint=joint)) for joint in (True, False))
    assert batch_identities(SimpleNamespace(source=pairs, siamese=together)) == 2.0  # {0, 1} and {1, 2}
    assert batch_identities(SimpleNamespace(source=pairs, siamese=SimpleNamespace(model=None))) == 1.5
    assert batch_identities(SimpleNamespace(source=pairs, siamese=apart)) == 1.5  # the left sides: {0} and {1, 2}
    batches = SimpleNamespace(labels=labels, rows=lambda: np.array([[0, 1, 2, 3]]), classes_per_batch=2)
    assert drawn_counts(batches).tolist() == [2, 2] and batch_identities(SimpleNamespace(source=batches)) == 2.0
    assert drawn_counts((None, ["a", "b", "b"])).tolist() == [1, 2] and drawn_counts(None) is None
    assert batch_identities(SimpleNamespace(source=(None, labels))) is None


def test_the_make_up_of_pairs_equals_a_loop(rng):
    left, right = rng.integers(0, 6, 60), rng.integers(0, 6, 60)
    same = rng.random(60) < 0.5
    found, names = make_up(left, right, same), [frozenset(pair) for pair in zip(left, right, strict=True)]
    assert found["identical_genuine"] == np.mean([a == b for a, b, s in zip(left, right, same, strict=True) if s])
    assert found["identical_impostors"] == np.mean([a == b for a, b, s in zip(left, right, same, strict=True) if not s])
    kinds = {name: {s for other, s in zip(names, same, strict=True) if other == name} for name in names}
    assert found["contradictory_pairs"] == np.mean([len(kinds[name]) == 2 for name in names])
    assert found["times_shown"] == 60 / len(set(names)) and found["pairs_of_items"] == 15 / len(set(names))
    assert found["constant_side"] == max(list(side).count(one) for side in (left, right) for one in range(6)) / 60


def test_equal_samples_have_equal_codes():
    x = np.array([[1, 2], [3, 4], [1, 2]])
    left, right = codes_of(x, x[::-1])
    assert left.tolist() == [0, 1, 0] and right.tolist() == [0, 1, 0]
    left, right = codes_of({"a": x, "b": np.arange(3)}, {"a": x, "b": np.array([0, 1, 0])})
    assert left.tolist() == [0, 1, 2] and right.tolist() == [0, 1, 0]


def test_few_pairs_have_a_large_error():
    assert chance_error(0.04, 300, 300) == pytest.approx(np.sqrt(0.04 * 0.96 / (0.75 * 600)))
    assert chance_error(0.04, 10, 10_000) == pytest.approx(np.sqrt(0.04 * 0.96 / (0.75 * 40)), rel=0.01)


def test_genuine_pairs_are_crossed_where_identities_are_not_known():
    rng = np.random.default_rng(0)
    identity = np.repeat(rng.normal(size=(40, 6)), 2, axis=0)  # left and right of 40 genuine pairs, one after the other
    z = np.concatenate([identity + 0.1 * rng.normal(size=(80, 6)), 50 + rng.normal(size=(80, 6))]).astype("float32")
    left, right = np.r_[0:80:2, 0:80:2], np.r_[1:80:2, 80:160:2]
    same = np.arange(80) < 40
    scores = -np.linalg.norm(z[left] - z[right], axis=1)
    trials = SimpleNamespace(identities=None, left=left, right=right)
    train = SimpleNamespace(trials=trials, same=same, scores=scores, embeddings=z)
    siamese = ks.SiameseWrapper(encoder(), "euclidean")
    observed = SimpleNamespace(train=train, has_embeddings=True, is_unshared=False, siamese=siamese)
    assert crossed_eer(observed) < 0.05  # the embedding tells all of them apart
    train.embeddings = z * (np.arange(160) >= 80)[:, None]  # and here only the far impostors
    train.scores = -np.linalg.norm(train.embeddings[left] - train.embeddings[right], axis=1)
    assert crossed_eer(observed) == pytest.approx(0.5)
    for change in ({"train": None}, {"is_unshared": True}, {"has_embeddings": False}):
        assert crossed_eer(SimpleNamespace(**{**vars(observed), **change})) is None
