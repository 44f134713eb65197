"""Training batches that an experiment can draw again: as the user's `fit` takes them, or made anew from the samples.

Contract: a `Batches` has a number of steps per epoch, and `at(step)` returns the same batch each time it is asked for
the same step. Pairs that are made anew are `((left, right), same)`.

    batches = batches_of(observed)
    x, y = batches.at(0)[:2]
    balanced = batches.resampled(rows)             # the same pairs in another make-up
"""

from dataclasses import dataclass, replace

import numpy as np
from keras import tree

from keras_siamese.attach.feed import gather, is_batched, pair_labels
from keras_siamese.data.sequence import EpochSequence

BATCH = 32  # Keras's own default, if the batches of `fit` are not known


@dataclass(frozen=True, eq=False)
class Batches:
    """Batches of arrays `x`, `y` as `fit` takes them, in an order that the seed gives.

    Attributes:
        x, y: nested structures of arrays `(n, …)`; `y` may be None.
        size: samples in a batch.
        rows: `(m,)` those of the n samples that an epoch shows, each as often as it is listed; None shows all.
    """

    x: object
    y: object
    size: int = BATCH
    rows: np.ndarray | None = None

    @property
    def steps(self):
        """The number of batches in an epoch."""
        return max(1, len(self._order(0)) // self.size)

    def at(self, step):
        """Batch number `step`, ≥ 0, over all epochs."""
        epoch, place = divmod(step, self.steps)
        rows = np.sort(self._order(epoch)[place * self.size : (place + 1) * self.size])
        x = tree.map_structure(lambda array: array[rows], self.x)
        return (x,) if self.y is None else (x, tree.map_structure(lambda array: array[rows], self.y))

    def _order(self, epoch):
        return np.random.default_rng([1, epoch]).permutation(self.shown)

    @property
    def shown(self):
        """The rows `(m,)` that an epoch shows."""
        return np.arange(len(tree.flatten(self.x)[0])) if self.rows is None else self.rows

    @property
    def labels(self):
        """One label of each pair `(n,)`; ValueError if the targets hold none."""
        return pair_labels(self.y, len(tree.flatten(self.x)[0]))

    def resampled(self, rows):
        """The same samples, of which an epoch shows `rows` `(m,)`."""
        return replace(self, rows=np.asarray(rows))

    def without(self, rows):
        """The same samples, of which those at the places `rows` in an epoch's list are left out."""
        return self.resampled(np.delete(self.shown, rows))

    def changed(self, x=None, y=None):
        """These batches with every input array changed by the function `x`, and every target array by `y`."""
        options = {name: tree.map_structure(how, getattr(self, name)) for name, how in (("x", x), ("y", y)) if how}
        return replace(self, **options)


@dataclass(frozen=True, eq=False)
class Sequence:
    """The batches of a sequence, whose epochs can be asked for in any order if it is one of this package.

    Attributes:
        source: a `PyDataset`.
        on_batch: a function that changes a batch `(x, y, …)`, or None.
    """

    source: object
    on_batch: object = None

    @property
    def steps(self):
        """The number of batches in an epoch."""
        return len(self.source)

    def at(self, step):
        """Batch number `step`, ≥ 0, over all epochs."""
        epoch, place = divmod(step, self.steps)
        batch = self.source.batch(epoch, place) if isinstance(self.source, EpochSequence) else self.source[place]
        batch = batch if isinstance(batch, tuple) else (batch,)
        return batch if self.on_batch is None else self.on_batch(batch)

    def changed(self, x=None, y=None):
        """These batches with every input array changed by the function `x`, and every target array by `y`."""

        def on_batch(batch):
            inputs, *targets = batch if self.on_batch is None else self.on_batch(batch)
            inputs = inputs if x is None else tree.map_structure(x, inputs)
            if y is not None and targets:
                targets[0] = tree.map_structure(y, targets[0])
            return (inputs, *targets)

        return Sequence(self.source, on_batch)


def batches_of(observed):
    """The batches of the run, or None if they cannot be read again."""
    fed = observed.source if observed.fed is None else observed.fed
    if fed is None:
        return None
    if is_batched(fed):
        return Sequence(fed) if hasattr(fed, "__getitem__") else Batches(*gather(fed))
    x, y = gather(fed)
    return Batches(x, y, -(-len(tree.flatten(x)[0]) // observed.steps) if observed.steps else BATCH)
