"""The comparator of a traced model, examined with random embeddings: what its outputs are, and which of them compares.

Contract: `Examined` takes `Towers`; the functions take the comparator, a Keras model. Imports `towers`, `direction`,
`layers` and `distances`.

    examined = Examined(towers)
    examined.output["compare"](left, right)     # (n, 1), the output that compares the first side with the second
    columns_weighted(towers.comparator)         # 1: weights follow a single number, such as a distance
"""

import keras
import numpy as np
from keras import ops

from keras_siamese.attach.direction import equal_end
from keras_siamese.attach.towers import size_of
from keras_siamese.distances import Distance
from keras_siamese.layers import DistanceLayer, SiameseWrapper

EXAMINED = 16  # random embeddings with which a comparator is examined


class Examined:
    """A comparator, examined with random embeddings.

    Attributes:
        are_embeddings: whether the outputs are the embeddings themselves: the model compares in its loss.
        output: `{"place": …, "column": …, "compare": …}`: which output of the model, and which of its columns, compares
            the first side with the second, and the function `(left, right) → (n, 1)` that gives it.
        end: see `direction.equal_end`.
    """

    def __init__(self, towers):
        self.parts = towers
        rng = np.random.default_rng(0)
        sizes = [sum(map(size_of, ends)) for ends in towers.ends]
        self.drawn = [[rng.normal(size=(EXAMINED, size)).astype("float32") for size in sizes] for _ in range(2)]
        first = self.outputs([0] * towers.count)
        embeddings = np.concatenate(self.drawn[0], axis=1)
        widths = sum(output.shape[1] for output in first)
        self.are_embeddings = widths == embeddings.shape[1] and np.allclose(
            np.concatenate(first, 1), embeddings, 1e-3, 1e-3
        )
        depends = []  # for each side, whether each column of each output changes with it
        for side in range(towers.count):
            changed = self.outputs([int(number == side) for number in range(towers.count)])
            depends.append([(one != other).any(axis=0) for one, other in zip(first, changed, strict=True)])
        place, column = 0, first[0].shape[1] - 1
        for number, output in enumerate(first):
            compares = depends[0][number] & depends[1][number]
            if towers.count == 3:
                compares &= ~depends[2][number]
            if compares.any():
                # Of two classes, the second stands for label 1.
                is_two_classes = towers.count == 2 and output.shape[1] == 2
                place, column = number, int(np.flatnonzero(compares)[-1 if is_two_classes else 0])
                break

        def compare(left, right):
            output = towers.compare(left, *[right] * (towers.count - 1))[place]
            return ops.reshape(output, (ops.shape(output)[0], -1))[:, column : column + 1]

        in_model = place if towers.places is None else towers.places[place]
        self.output = {"place": in_model, "column": column, "compare": compare}

    def outputs(self, which):
        """The comparator's outputs `(n, …)` as rows, with the first or second draw of each side's embeddings."""
        tensors = [ops.convert_to_tensor(self.drawn[one][side]) for side, one in enumerate(which)]
        flat = [ops.convert_to_numpy(one).astype("float64") for one in self.parts.compare(*tensors)]
        return [one.reshape(EXAMINED, -1) for one in flat if one.size % EXAMINED == 0]

    def compared(self, left, right):
        tensors = map(ops.convert_to_tensor, (left, right))
        return ops.convert_to_numpy(self.output["compare"](*tensors)).astype("float64")[:, 0]

    @property
    def end(self):
        left, right = self.drawn[0][:2]
        if left.shape != right.shape:
            return 0
        return equal_end(self.compared(left, left), self.compared(left, right))

    @property
    def scale_free(self):
        left, right = self.drawn[0][:2]
        return np.allclose(self.compared(left, right), self.compared(3 * left, 3 * right), rtol=1e-4, atol=1e-6)

    def wrapper(self):
        """A `SiameseWrapper` that computes the same: a distance of this package, and at most one layer after it."""
        comparator = self.parts.comparator
        distance = None if comparator is None or not self.parts.is_shared else own_distance(comparator)
        if distance is None or self.parts.axis is not None:
            return None
        weighted = [layer for layer in comparator.layers if layer.weights and not hasattr(layer, "distance")]
        head = weighted[0] if len(weighted) == 1 else None
        wrapper = SiameseWrapper(self.parts.models[0], distance, head=head)
        left, right = self.drawn[0][:2]
        mine = ops.convert_to_numpy(wrapper.compare(*map(ops.convert_to_tensor, (left, right))))[:, -1]
        return wrapper if np.allclose(mine, self.compared(left, right), rtol=1e-4, atol=1e-5) else None


def is_distance_alone(comparator):
    """Whether the `comparator` is a `DistanceLayer` of two embeddings, and nothing else."""
    found = [one for one in comparator.operations if not isinstance(one, keras.layers.InputLayer)]
    return len(comparator.inputs) == 2 and [*map(type, found)] == [DistanceLayer]


def own_distance(comparator):
    """The only `Distance` of this package that a layer of the `comparator` computes, or None."""
    found = [getattr(layer, "distance", None) for layer in comparator.layers]
    found = {repr(one): one for one in found if isinstance(one, Distance)}
    return next(iter(found.values())) if len(found) == 1 else None


def columns_weighted(comparator):
    """The most columns of a tensor to which a layer of the `comparator` applies the first weights; 0 without any."""
    widths, after = [0], set()
    # Not `nodes_between`: a layer that was called since may have lost the record of this call.
    for node in [node for _, level in sorted(comparator._nodes_by_depth.items(), reverse=True) for node in level]:
        has_weights = bool(getattr(node.operation, "weights", ()))
        follows = any(id(tensor) in after for tensor in node.input_tensors)
        if has_weights and not follows:
            widths.append(max([size_of(tensor) for tensor in node.input_tensors], default=0))
        if has_weights or follows:
            after |= {id(tensor) for tensor in node.outputs}
    return max(widths)
