"""The parts of a traced siamese model: a tower for each side, and the comparator that joins them.

Contract: `towers_of` builds both from the model's graph (`graph.py`), with the model's own layers and weights: towers
and comparator together compute exactly what the model does. Imports Keras and `graph`.

    towers = towers_of(model, sample=[left, right])                   # None if the model joins its inputs at once
    embeddings = [tower(side) for tower, side in zip(towers.models, [left, right])]
    outputs = towers.compare(*embeddings)                             # those of model([left, right]), flat
"""

import keras
import numpy as np
from keras import ops, tree

from keras_siamese.attach.graph import graph_of, is_input, node_of, split, split_on_axis, unchanged_layers

PROBED = 4  # random samples with which the dependence on a part of one input is probed


class Towers:
    """A tower for each side of a traced model, and the comparator that joins them.

    A tower may end in several tensors. They are flattened and concatenated, so that each item has one embedding
    `(dim,)`. An item is an array, or a dict of arrays by input name if a side has several inputs.

    Attributes:
        models: a model for each side, from items to embeddings `(n, dim)`. Shared towers are one object.
        comparator: the model from the tensors in which the towers end to the outputs; None if these are the same.
        is_shared: whether all sides apply the same operations with the same weights.
        axis: the axis of one joint input on which the sides lie, or None; see `part` for how they lie there.
        inputs: indices of the model's inputs (flat) of each side.
        names: the keys of an item's arrays, or None if an item is one array.
        embeds: whether the towers do anything: a model that joins its inputs at once has none.
        places: which of the model's outputs the comparator gives; None for all of them.
    """

    def __init__(self, graph, sides, axis=None):
        self.axis, self.count, self.places = axis, len(sides), graph.places
        self.inputs = [side.inputs for side in sides]
        names = [graph.inputs[index].name for index in self.inputs[0]]
        self.names = names if len(names) > 1 else None
        distinct = [first_places(side.signatures) for side in sides]
        ways = {tuple(side.signatures[i] for i in kept) for side, kept in zip(sides, distinct, strict=True)}
        self.is_shared = len(ways) == 1
        self.ends = [[side.frontier[i] for i in kept] for side, kept in zip(sides, distinct, strict=True)]
        # Where each input of the comparator comes from: (side, which of the side's distinct ends).
        self.wiring = [
            (number, [side.signatures[i] for i in kept].index(signature))
            for number, (side, kept) in enumerate(zip(sides, distinct, strict=True))
            for signature in side.signatures
        ]
        count = 1 if self.is_shared else len(sides)
        self.models = [self.tower(graph, side) for side in range(count)] * (len(sides) // count)
        self.embeds = any(not is_input(tensor) for side in sides for tensor in side.frontier)
        frontier = [tensor for side in sides for tensor in side.frontier]
        is_joined = not {id(output) for output in graph.outputs} & {id(tensor) for tensor in frontier}
        self.comparator = keras.Model(frontier, graph.outputs) if is_joined else None

    def tower(self, graph, side):
        """The model of a `side`: one of the user's models, if it is exactly that."""
        inputs, ends = [graph.inputs[index] for index in self.inputs[side]], self.ends[side]
        node, dtype = node_of(ends[0]), keras.backend.standardize_dtype(ends[0].dtype)
        is_plain = len(ends) == 1 and len(ends[0].shape) == 2 and dtype == "float32" and not is_input(ends[0])
        is_alone = len(inputs) == 1 and self.axis is None and [*map(id, node.input_tensors)] == [id(inputs[0])]
        if is_plain and is_alone and isinstance(node.operation, keras.Model):
            return node.operation
        if not is_plain:
            flat = [ops.cast(ops.reshape(end, (-1, size_of(end))), "float32") for end in ends]
            ends = [ops.concatenate(flat, axis=1) if len(flat) > 1 else flat[0]]
        if self.axis is None:
            return keras.Model(dict(zip(self.names, inputs, strict=True)) if self.names else inputs[0], ends[0])
        shape = list(inputs[0].shape)
        is_stacked = shape[self.axis] == self.count
        shape[self.axis : self.axis + 1] = [] if is_stacked else [shape[self.axis] // self.count]
        item = keras.Input(batch_shape=shape, dtype=inputs[0].dtype)
        join = ops.stack if is_stacked else ops.concatenate
        return keras.Model(item, keras.Model(inputs[0], ends[0])(join([item] * self.count, axis=self.axis)))

    def items(self, x):
        """The items of each side, from what the model takes; see `names`."""
        arrays = tree.flatten(x)
        if self.axis is not None:
            return [part(arrays[0], self.axis, side, self.count) for side in range(self.count)]
        if len(arrays) < sum(map(len, self.inputs)):  # a pair for a model of triplets
            arrays = arrays + [None] * (sum(map(len, self.inputs)) - len(arrays))
        sides = [[arrays[index] for index in inputs] for inputs in self.inputs]
        sides = [side for side in sides if all(array is not None for array in side)]
        return [dict(zip(self.names, side, strict=True)) if self.names else side[0] for side in sides]

    def compare(self, *embeddings, training=False):
        """The model's outputs, flat, from the embeddings `(n, dim)` of each side."""
        parts = [self.parts(one, side) for side, one in enumerate(embeddings)]
        if self.comparator is None:
            return [part for side in parts for part in side]
        inputs = [parts[side][place] for side, place in self.wiring]
        return tree.flatten(self.comparator(inputs if len(inputs) > 1 else inputs[0], training=training))

    def parts(self, embeddings, side):
        """The tensors in which the tower of a `side` ended, from `embeddings` `(n, dim)`."""
        sizes = np.cumsum([0, *map(size_of, self.ends[side])])
        return [
            ops.cast(ops.reshape(embeddings[:, start:end], (-1, *tensor.shape[1:])), tensor.dtype)
            for tensor, start, end in zip(self.ends[side], sizes[:-1], sizes[1:], strict=True)
        ]


def size_of(tensor):
    return int(np.prod(tensor.shape[1:], dtype=int))


def first_places(signatures):
    """The first place of each distinct signature."""
    return [place for place, one in enumerate(signatures) if one not in signatures[:place]]


def towers_of(model, sample=None):
    """The `Towers` of `model`, or None: it cannot be traced, or joins its inputs at once.

    Args:
        sample: some rows of what `model` takes, for a subclassed model or a joint input.
    """
    with unchanged_layers(model):
        graph = graph_of(model, sample)
        if graph is None:
            return None
        if len(graph.inputs) > 1:
            sides = split(graph)
            return Towers(graph, sides) if sides and all(map(has_known_size, sides)) else None
        for axis, count in ways_to_split(graph):
            sides = split_on_axis(graph, count, dependence(graph, axis, count, sample))
            if sides and all(map(has_known_size, sides)):
                return Towers(graph, sides, axis)
    return None


def ways_to_split(graph):
    """`(axis, count)` by which the only input of a `graph` may hold several items: stacked on an axis of their number,
    or side by side, if the first operations take the input apart.
    """
    sizes = [(axis, size) for axis, size in enumerate(graph.inputs[0].shape) if axis and size]
    found = [(axis, size) for axis, size in sizes if size in (2, 3)]
    first = [node for node in graph.nodes if any(one is graph.inputs[0] for one in node.input_tensors)]
    if sum(len(node.outputs) for node in first) > 1:
        found += [(axis, count) for axis, size in sizes for count in (2, 3) if size > count and size % count == 0]
    return found


def part(array, axis, number, count):
    """The item of the index `number` of those `count` that lie on an axis: stacked if it has their size, or else side
    by side.

    >>> part(np.array([[1, 2], [3, 4]]), 1, 0, 2).tolist(), part(np.array([[1, 2, 3, 4]]), 1, 1, 2).tolist()
    ([1, 3], [[3, 4]])
    """
    size = array.shape[axis] // count
    index = number if size == 1 else slice(number * size, (number + 1) * size)
    return array[(slice(None),) * axis + (index,)]


def has_known_size(side):
    return all(size is not None for end in side.frontier for size in end.shape[1:])


def dependence(graph, axis, count, sample=None):
    """On which of the `count` items along `axis` each tensor depends, by its id: measured with random samples."""
    source = graph.inputs[0]
    tensors = list({id(tensor): tensor for node in graph.nodes for tensor in node.outputs}.values())
    probe = keras.Model(source, tensors)
    rng = np.random.default_rng(0)
    shape = (PROBED, *(8 if size is None else size for size in source.shape[1:]))

    def drawn():
        if sample is not None and np.ndim(tree.flatten(sample)[0]) == len(shape):
            array = np.asarray(tree.flatten(sample)[0])
            return array[rng.integers(0, len(array), PROBED)]
        return rng.normal(size=shape).astype(source.dtype) if "float" in source.dtype else rng.integers(0, 2, shape)

    first, second = drawn(), drawn()
    before = tree.flatten(probe.predict_on_batch(first))
    found = {id(source): frozenset(range(count))}
    found |= {id(tensor): frozenset() for tensor in tensors}
    for item in range(count):
        changed = first.copy()
        part(changed, axis, item, count)[...] = part(second, axis, item, count)
        after = tree.flatten(probe.predict_on_batch(changed))
        for tensor, old, new in zip(tensors, before, after, strict=True):
            if not np.array_equal(old, new):
                found[id(tensor)] |= {item}
    return found


class Joined:
    """What stands for `Towers` of a model that joins its inputs at once, or cannot be traced: it compares the samples.

    An embedding is a sample's numbers in a row, so the output of a pair is still the model's own.
    """

    is_shared, embeds, names, comparator, places = True, False, None, None, None

    def __init__(self, model, sample, axis=None):
        arrays = tree.flatten(sample)
        self.model, self.axis, self.structure = model, axis, sample
        self.count = len(arrays) if axis is None else arrays[0].shape[axis]
        shape = [size for place, size in enumerate(arrays[0].shape) if place not in (0, axis)]
        item = keras.Input(shape, dtype=keras.backend.standardize_dtype(arrays[0].dtype))
        self.ends = [[item]] * self.count
        self.models = [keras.Model(item, ops.cast(ops.reshape(item, (-1, size_of(item))), "float32"))] * self.count

    def items(self, x):
        """The items of each side, from what the model takes."""
        arrays = tree.flatten(x)
        return arrays if self.axis is None else [part(arrays[0], self.axis, i, self.count) for i in range(self.count)]

    def compare(self, *embeddings, training=False):
        """The model's outputs, flat, from the flattened samples `(n, …)` of each side."""
        end = self.ends[0][0]
        sides = [ops.cast(ops.reshape(one, (-1, *end.shape[1:])), end.dtype) for one in embeddings]
        x = tree.pack_sequence_as(self.structure, sides) if self.axis is None else ops.stack(sides, axis=self.axis)
        return tree.flatten(self.model(x, training=training))


def joined(model, sample):
    """`Joined` for a `model` of two or three inputs of one shape, or with an axis of that size; else None."""
    arrays = tree.flatten(sample)
    shapes = {tuple(np.shape(array)[1:]) for array in arrays}
    if len(arrays) in (2, 3) and len(shapes) == 1:
        return Joined(model, sample)
    axes = [place for place, size in enumerate(np.shape(arrays[0])) if place and size == 2]
    return Joined(model, sample, axes[-1]) if len(arrays) == 1 and axes else None
