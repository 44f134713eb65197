"""The batches of a sequence for other input pipelines than `fit`: Grain, `tf.data`, or a plain loop.

Contract: an `EpochBatches` holds the batches of several epochs, one after another, each as the sequence serves it at
that epoch and index. It has `__len__` and `__getitem__`, which Grain requires of a source, has no current epoch, and
can be read in any order. Users use this module.

    batches = EpochBatches(sequence, epochs=20)
    (left, right), same = batches[3 * len(sequence) + 5]                 # epoch 3, batch 5
    grain.MapDataset.source(batches).to_iter_dataset()
    model.fit(batches.as_tf_dataset(), epochs=20, steps_per_epoch=len(sequence), shuffle=False)
"""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from keras import tree

from keras_siamese._checks import check_installed, check_integer
from keras_siamese.data.sequence import EpochSequence


class EpochBatches:
    """The batches of a sequence over several epochs as one random-access source.

    Args:
        sequence: a `PairSequence`, `TripletSequence`, `BalancedBatchSequence` or another sequence of `data`.
        epochs: number of epochs, ≥ 1.
        first_epoch: the first epoch, ≥ 0; to resume training, the number of epochs already trained.

    >>> from keras_siamese.data import PairSequence
    >>> sequence = PairSequence(np.arange(6.0), [0, 0, 1, 1, 2, 2], batch_size=4)
    >>> batches = EpochBatches(sequence, epochs=3)
    >>> len(sequence), len(batches)
    (2, 6)
    """

    def __init__(self, sequence: EpochSequence, epochs: int, first_epoch: int = 0) -> None:
        if not isinstance(sequence, EpochSequence):
            raise TypeError(f"`sequence` must be a sequence of keras_siamese.data; got {type(sequence).__name__}")
        self.sequence = sequence
        self.epochs = check_integer("epochs", epochs, low=1)
        self.first_epoch = check_integer("first_epoch", first_epoch, low=0)

    def __len__(self) -> int:
        return self.epochs * len(self.sequence)

    def __getitem__(self, index: int) -> tuple[Any, ...]:
        epoch, batch = divmod(range(len(self))[operator.index(index)], len(self.sequence))
        return self.sequence.batch(self.first_epoch + epoch, batch)

    def as_tf_dataset(self) -> Any:
        """A prefetched `tf.data.Dataset` of the batches, for `fit(…, steps_per_epoch=len(sequence), shuffle=False)`.

        Shapes are those of the first batch, with any number of rows.
        """
        tensorflow = check_installed("tensorflow", "tensorflow")

        def spec(array):
            array = np.asarray(array)
            return tensorflow.TensorSpec((None, *array.shape[1:]), array.dtype)

        signature = tree.map_structure(spec, self[0])
        data = tensorflow.data
        dataset = data.Dataset.from_generator(
            lambda: map(self.__getitem__, range(len(self))), output_signature=signature
        )
        return dataset.apply(data.experimental.assert_cardinality(len(self))).prefetch(data.AUTOTUNE)

    def __repr__(self) -> str:
        last = self.first_epoch + self.epochs - 1
        return f"EpochBatches({len(self)} batches, epochs {self.first_epoch} to {last} of {self.sequence!r})"
