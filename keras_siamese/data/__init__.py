"""Data: identity-disjoint splits, and batches that are a pure function of `(seed, epoch, index)`.

    train, valid, test = split_identities(x, labels, (0.7, 0.15, 0.15), seed=0)
    sequence = PairSequence(*train, batch_size=128, augment=image_augmenter(rotation_range=20))

Contract: `sources` says what samples may be and what their labels become; `sequence` gives batches their epoch under
`fit`; everything else stands on these two. The room imports `_checks` and nothing else of the package.
"""

from keras_siamese.data.augment import image_augmenter
from keras_siamese.data.pairs import PairSequence
from keras_siamese.data.splits import IdentityKFold, split_identities

__all__ = ["IdentityKFold", "PairSequence", "image_augmenter", "split_identities"]
