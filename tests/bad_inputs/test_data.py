"""`data` with unusual arrays."""

import numpy as np
import pytest

from keras_siamese import data
from tests.support.unusual import Room

N = 24
RNG = np.random.default_rng(0)
LABELS = np.arange(N) // 4
X = RNG.normal(size=(N, 4)).astype("float32")
LEFT = np.r_[0:N:4, 0:6]
RIGHT = np.r_[1:N:4, 12:18]
FEW = (X[:9], LABELS[:9])


def refreshed(sequence, embeddings):
    sequence.refresh(embeddings)
    return sequence[0]


SAMPLES = Room(
    {
        "pair_class_weights": data.pair_class_weights,
        "sample_weights": data.sample_weights,
        "split_identities": lambda x, labels: data.split_identities(x, labels, (0.5, 0.5)),
        "from_pairs": lambda x, left, right, same, labels: data.from_pairs(x, left, right, same, labels=labels)[0],
        "ExplicitPairs": lambda x, left, right, same: data.ExplicitPairs(x, left, right, same)[0],
        "PairSequence": lambda x, labels: data.PairSequence(x, labels)[0],
        "PairSequence.refresh": lambda embeddings: refreshed(data.PairSequence(X, LABELS), embeddings),
        "TripletSequence": lambda x, labels: data.TripletSequence(x, labels)[0],
        "TripletSequence.refresh": lambda embeddings: refreshed(data.TripletSequence(X, LABELS), embeddings),
        "BalancedBatchSequence": lambda x, labels: data.BalancedBatchSequence(x, labels, classes_per_batch=3)[0],
        "BalancedBatchSequence.superclasses": lambda superclasses: data.BalancedBatchSequence(
            X, LABELS, classes_per_batch=2, superclasses=superclasses
        )[0],
        "BalancedBatchSequence.refresh": lambda embeddings: refreshed(
            data.BalancedBatchSequence(X, LABELS, classes_per_batch=3), embeddings
        ),
        "EpochBatches": lambda x, labels: data.EpochBatches(data.PairSequence(x, labels), 2)[1],
        "IdentityKFold": lambda y: list(data.IdentityKFold(3).split(None, y)),
        "IdentityKFold.groups": lambda groups: list(data.IdentityKFold(3).split(None, None, groups)),
        "mine_hard_negatives": lambda embeddings, labels: data.mine_hard_negatives(embeddings, labels).triplets(),
        "check_leakage": lambda x, labels: data.check_leakage((x, labels), FEW),
        "check_leakage.valid": lambda x, labels: data.check_leakage(FEW, (x, labels)),
        "check_leakage.embeddings": lambda embeddings: data.check_leakage(
            (X, None), FEW, embeddings=(embeddings, X[:9])
        ),
    },
    {
        "x": X,
        "embeddings": X,
        **dict.fromkeys(("labels", "y", "groups"), LABELS),
        "superclasses": LABELS // 3,
        "left": LEFT,
        "right": RIGHT,
        "same": LABELS[LEFT] == LABELS[RIGHT],
    },
    also=("classes_per_batch", "n_splits", "train", "valid"),
    without=("complex",),  # samples may be complex
)
AUGMENT = data.image_augmenter(rotation_range=20, brightness_range=(0.5, 1.5))
IMAGES = Room(
    {"image_augmenter": lambda images: AUGMENT(images, np.random.default_rng(0))},
    {"images": RNG.random((5, 8, 8, 1)).astype("float32")},
    tensors=True,
)
ROOMS = {"data": SAMPLES, "augmentation": IMAGES}


@pytest.mark.parametrize(("room", "name"), [(room, name) for room in ROOMS for name in ROOMS[room].calls])
def test_each_case_is_answered_or_refused_by_name(room, name):
    assert ROOMS[room].wrong(name) == {}
