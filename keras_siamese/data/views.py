"""A sequence's batches for input pipelines other than `fit`'s own: Grain, `tf.data`, or a plain loop.

Contract: an `EpochBatches` is a list of the batches of several epochs, one after the other, each the batch that the
sequence serves at that epoch and index. It has `__len__` and `__getitem__`, which is what Grain asks of a source, keeps
no epoch of its own, and can be read in any order. Users import this module through `data`.

    batches = EpochBatches(sequence, epochs=20)
    (left, right), same = batches[3 * len(sequence) + 5]                 # epoch 3, batch 5
    grain.MapDataset.source(batches).to_iter_dataset()
    model.fit(batches.as_tf_dataset(), epochs=20, steps_per_epoch=len(sequence), shuffle=False)
"""

import operator

import numpy as np
from keras import tree

from keras_siamese._checks import check_installed, check_integer
from keras_siamese.data.sequence import EpochSequence


class EpochBatches:
    """The batches of a sequence over several epochs as one random-access source.

    Args:
        sequence: a `PairSequence`, `TripletSequence`, `BalancedBatchSequence` or another sequence of this room.
        epochs: ≥ 1, how many.
        first_epoch: ≥ 0, where they begin; what was trained already, after a resume.

    >>> from keras_siamese.data import PairSequence
    >>> sequence = PairSequence(np.arange(6.0), [0, 0, 1, 1, 2, 2], batch_size=4)
    >>> batches = EpochBatches(sequence, epochs=3)
    >>> len(sequence), len(batches)
    (2, 6)
    """

    def __init__(self, sequence, epochs, first_epoch=0):
        if not isinstance(sequence, EpochSequence):
            raise TypeError(f"`sequence` must be a sequence of keras_siamese.data; got {type(sequence).__name__}")
        self.sequence = sequence
        self.epochs = check_integer("epochs", epochs, low=1)
        self.first_epoch = check_integer("first_epoch", first_epoch, low=0)

    def __len__(self):
        return self.epochs * len(self.sequence)

    def __getitem__(self, index):
        epoch, batch = divmod(range(len(self))[operator.index(index)], len(self.sequence))
        return self.sequence.batch(self.first_epoch + epoch, batch)

    def as_tf_dataset(self):
        """A `tf.data.Dataset` of the batches in order, for `fit(…, steps_per_epoch=len(sequence), shuffle=False)`.

        Shapes are those of the sequence's first batch, with any number of rows; it is prefetched.
        """
        tensorflow = check_installed("tensorflow", "tensorflow")

        def spec(array):
            array = np.asarray(array)
            return tensorflow.TensorSpec((None, *array.shape[1:]), array.dtype)

        signature = tree.map_structure(spec, self[0])
        dataset = tensorflow.data.Dataset.from_generator(
            lambda: (self[i] for i in range(len(self))), output_signature=signature
        )
        return dataset.apply(tensorflow.data.experimental.assert_cardinality(len(self))).prefetch(
            tensorflow.data.AUTOTUNE
        )

    def __repr__(self):
        last = self.first_epoch + self.epochs - 1
        return f"EpochBatches({len(self)} batches, epochs {self.first_epoch} to {last} of {self.sequence!r})"
