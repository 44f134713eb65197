"""What a siamese model is made of: `dissect`.

Contract: all modules that measure a model ask an `Anatomy`. It embeds items and compares embeddings exactly as the
model does, so a score is the model's own output. Imports the other modules of this room, `layers`, `distances` and
`data`.

    anatomy = dissect(model, sample=[left, right])
    print(anatomy)
    output = anatomy.compare(*anatomy.embed([left, right]))       # (n, 1), what model.predict([left, right]) gives
"""

import keras
import numpy as np
from keras import ops, tree

from keras_siamese.attach.direction import closer_label, direction_of, equal_end, pull
from keras_siamese.attach.feed import pair_labels
from keras_siamese.attach.graph import (
    in_order,
    inputs_of,
    is_functional,
    is_input,
    node_of,
    shows_parts,
    unchanged_layers,
)
from keras_siamese.attach.towers import joined, size_of, towers_of
from keras_siamese.data.sources import take
from keras_siamese.distances import Distance
from keras_siamese.layers import SiameseWrapper

FEW = 1000  # pairs from which the direction is found
EXAMINED = 16  # random embeddings with which a comparator is examined


class Anatomy:
    """A siamese model, understood. Made by `dissect`.

    Attributes:
        model: the user's model.
        encoder: the model from items to their embeddings `(n, dim)`.
        other: the encoder of the right side, if it has weights of its own; else None.
        has_embeddings: whether the encoder does anything. A model that joins its inputs at once has no embeddings; its
            "encoder" returns the samples themselves.
        distance: the `Distance` between embeddings, or None for a comparator of the user's own.
        head: the layer with weights from the distance to the output, if this is all that follows the distance.
        scale_free: whether the comparison looks only at the directions of embeddings.
        bounds: `(lowest, highest)` value of the output, or None if not known.
        output_kind: "distance" if the output falls with similarity, "score" if it grows.
        wrapper: a `SiameseWrapper` of the same parts, or None if the comparator is none of this package's distances.
        towers: the encoders of the sides, a tuple; one for all sides if they share their weights.
        comparator: the model from the towers' ends to the outputs; None if the model shows its parts itself, compares
            in its loss, or cannot be traced.
        parts: `Towers` of a traced model; None for a `SiameseWrapper` and for an encoder.
        sample: the sample with which the model was traced, or None.
        direction: what the output means and how that was found (`Direction`); None before `orient`.
        pair_loss: the compiled loss of one pair as a function `(label, output) → float`, NaN where it has none; None
            before `orient`, and for a model that does not compare by itself.
        labels: `(low, high)`, the two labels of pairs; None before `orient`.
        notes: sentences that say what was found and what was assumed.
    """

    def __init__(self, model, notes, *, wrapper=None, towers=None, compare=None, place=0, column=0):
        self.model, self.notes = model, tuple(notes)
        self.wrapper, self.parts, self.direction, self.sample = wrapper, towers, None, None
        self.comparator = None if towers is None else towers.comparator
        self.place, self.column = place, column  # of the output that compares
        self.compares_itself = compare is not None or wrapper is model
        self.pair_loss = self.labels = None
        self.has_embeddings = towers is None or towers.embeds
        self.encoder = towers.models[0] if wrapper is None else wrapper.encoder
        self.other = None if towers is None or towers.is_shared else towers.models[1]
        self.distance, self.head, self.bounds = (
            getattr(wrapper, name, None) for name in ("distance", "head", "bounds")
        )
        self.scale_free = wrapper is not None and wrapper.distance.scale_free
        self.output_kind = getattr(wrapper, "output_kind", "score")
        self._compare = compare or wrapper.compare

    @property
    def name(self):
        return self.model.name

    def embed(self, items, training=False):
        """Embeddings of the items of two sides, a list of two tensors `(n, dim)`."""
        if self.wrapper is not None and self.other is None:
            return self.wrapper.embed(tuple(items), training=training)
        left, right = items
        return [self.encoder(left, training=training), (self.other or self.encoder)(right, training=training)]

    def encode(self, items, training=False, mask=None):
        """Embeddings `(n, dim)` of items of the left side."""
        if self.wrapper is not None:
            return self.wrapper.encode(items, training, mask)
        return self.encoder(items, training=training)

    def compare(self, left, right):
        """The model's output for pairs of embeddings `(n, dim)`: `(n, 1)`."""
        return self._compare(left, right)

    @property
    def towers(self):
        return (self.encoder,) if self.other is None else (self.encoder, self.other)

    @property
    def learned(self):
        """The trainable weights that follow the comparison: with them training can turn its direction."""
        if self.parts is None:
            return [] if self.head is None else list(self.head.trainable_weights)
        return list((self.parts.comparator or self.model).trainable_weights)

    @property
    def has_scalar_head(self):
        """Whether weights follow a comparison of one number: they can turn its direction, and nothing else."""
        if self.wrapper is not None and self.parts is None:
            return self.head is not None
        return self.comparator is not None and 0 < columns_weighted(self.comparator) <= 1

    def __str__(self):
        lines = [f"{self.name} ({type(self.model).__name__})", *self.notes]
        return "\n  ".join(lines if self.direction is None else [*lines, str(self.direction)])


def dissect(model, sample=None, *, encoder=None, distance=None):
    """Find the towers, the comparator and the output of a siamese model.

    Args:
        model: any Keras model that compares two or three items, or an encoder.
        sample: some rows of what `model` takes, a nested structure of arrays. Needed for a subclassed model, whose
            graph is traced with it.
        encoder: the model from one item to its embedding, if it cannot be found; the towers of a traced model are kept.
        distance: how to compare embeddings, "cosine" by default, if the model has no comparator.

    Returns:
        An `Anatomy`.

    Raises:
        TypeError: if `model` is no Keras model or layer.
        ValueError: if neither towers nor an encoder are found, or if `encoder` or `distance` contradicts the model.
    """
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"`model` must be a Keras model or layer; got {model!r} of type {type(model).__name__}")
    if shows_parts(model):
        refuse("encoder", None if encoder is model.encoder else encoder, model)
        refuse("distance", distance, model)
        return of_wrapper(model, model)
    if encoder is not None:
        check_part(model, encoder)
    inner = [one for one in getattr(model, "layers", ()) if isinstance(one, keras.Model)]
    towers = towers_of(model, sample)
    if towers is None:  # a model that compares in `train_step` holds its parts
        towers = next(filter(None, (towers_of(one) for one in inner if is_functional(one))), None)
    if towers is not None and (towers.embeds or not is_encoder(model, sample)):
        return of_towers(model, towers, distance, sample)
    if encoder is None and compares_as_a_whole(model, sample):
        return of_towers(model, joined(model, sample), distance, sample)
    if encoder is None:
        encoder = next((one for one in (model, *inner) if is_encoder(one, sample if one is model else None)), None)
    if encoder is not None:
        embeds = without_classifier(encoder)
        anatomy = of_wrapper(model, SiameseWrapper(embeds, distance or "cosine"))
        if embeds is not encoder:
            anatomy.notes = (
                f"classifier over identities: {model.name}; what enters its last layer is the embedding",
                *anatomy.notes,
            )
        return anatomy
    towers = None if sample is None else joined(model, sample)
    if towers is None:
        raise ValueError(
            f"No encoder found in {getattr(model, 'name', model)!r} (a {type(model).__name__}): it does not compare "
            "two or three inputs, and its output is not the embedding (batch, dim) of one input. Pass `encoder=`, the "
            "model from one input to its embedding"
        )
    return of_towers(model, towers, distance, sample)


def refuse(name, value, model):
    if value is not None:
        what = f"{model.name!r} (a {type(model).__name__})"
        raise ValueError(f"`{name}` must be None for {what}, which has its own {name}; got {value!r}")


def check_part(model, encoder):
    """Refuse an `encoder` whose weights are not weights of `model`: training the model would not train it."""
    own = {id(weight) for weight in model.weights}
    foreign = sum(id(weight) not in own for weight in encoder.weights)
    if own and foreign:
        raise ValueError(
            f"`encoder` must be a part of {model.name!r}; {foreign} of the {len(encoder.weights)} weights of "
            f"{encoder.name!r} are not in it. Pass the layer or model that {model.name!r} itself uses"
        )


def compares_as_a_whole(model, sample):
    """Whether a `model` that cannot be traced turns several inputs of one shape into one or two numbers a pair."""
    if is_functional(model) or sample is None or len(tree.flatten(sample)) < 2 or joined(model, sample) is None:
        return False
    try:
        outputs = model(tree.map_structure(lambda one: ops.convert_to_tensor(one[:2]), sample))
    except Exception:  # what a user's call raises is not known
        return False
    return all(1 <= int(np.prod(one.shape, dtype=int)) / 2 <= 2 for one in tree.flatten(outputs))


def compares(model, sample=None):
    """Whether `model` compares inputs: its graph has towers, or it joins inputs to something that is no embedding."""
    towers = towers_of(model, sample)
    return towers is not None and (towers.embeds or not is_encoder(model, tree.flatten(sample or model.inputs)))


def is_encoder(model, sample=None):
    """Whether `model` computes embeddings `(batch, dim)`, dim > 1, of one item; `sample` are some items.

    Of several inputs that are joined at once, two columns may be two classes of a pair; an embedding has more.
    """
    if not isinstance(model, keras.layers.Layer):
        return False
    if is_functional(model):
        shapes = [tuple(output.shape) for output in model.outputs]
        is_item = len(model.inputs) == (1 if sample is None else len(tree.flatten(sample)))
    elif sample is not None:
        try:
            output = model(tree.map_structure(lambda one: ops.convert_to_tensor(one[:2]), sample))
        except Exception:  # what a user's call raises is not known
            return False
        shapes, is_item = [tuple(one.shape) for one in tree.flatten(output)], True
    else:
        return False
    least = 2 if (is_functional(model) and len(model.inputs) == 1) or not is_functional(model) else 3
    return is_item and len(shapes) == 1 and len(shapes[0]) == 2 and (shapes[0][1] or 0) >= least


def without_classifier(model):
    """The part of a functional `model` that embeds: all but the classifier over identities, if it ends in one."""
    if not is_functional(model) or not classifies(model):
        return model
    node = node_of(model.outputs[0])
    while not getattr(node.operation, "weights", ()) and len(node.input_tensors) == 1:
        node = node_of(node.input_tensors[0])
    ends = node.input_tensors
    if len(ends) != 1 or len(ends[0].shape) != 2 or is_input(ends[0]):
        return model
    with unchanged_layers(model):
        return keras.Model(inputs_of(model), ends[0])


def classifies(model):
    """Whether the compiled loss of one sample is that of a classifier: it falls as the output of its class grows.

    A loss of one-hot targets must also ignore what is added to all outputs (logits), or their scale (probabilities),
    because a regression to such targets does not.
    """
    classes = model.outputs[0].shape[-1]

    def loss(target, raised, add=0.0, times=1.0):
        outputs = np.full((1, classes), 1 / classes, "float32")
        outputs[0, raised] += 0.5 / classes
        y, y_pred = ops.convert_to_tensor(target), ops.convert_to_tensor(times * outputs + np.float32(add))
        return float(model.compute_loss(x=None, y=y, y_pred=y_pred))

    for is_one_hot in (False, True):
        rows = np.eye(classes, dtype="float32") if is_one_hot else np.arange(classes, dtype="int32")
        try:
            values = np.array([[loss(rows[[one]], raised) for raised in range(3)] for one in range(3)])
            ignored = [loss(rows[[0]], 0, add=1.0), loss(rows[[0]], 0, times=2.0)] if is_one_hot else values[0, :1]
        except Exception:  # an uncompiled model, a loss of other targets, or fewer than three classes
            continue
        own, others = np.diag(values), values[~np.eye(3, dtype=bool)].reshape(3, 2)
        falls = np.isfinite(values).all() and (own[:, None] < others).all()
        if falls and np.isclose(ignored, values[0, 0], rtol=1e-4).any():
            return True
    return False


def of_wrapper(model, wrapper):
    """The `Anatomy` of a model that shows its parts, or of which a `SiameseWrapper` was made."""
    notes = [f"tower: {wrapper.encoder.name}, the same on each side", f"comparator: {wrapper.distance!r}"]
    if wrapper.head is not None:
        notes.append(f"head: {wrapper.head.name}")
    return Anatomy(model, notes, wrapper=wrapper)


def of_towers(model, towers, distance=None, sample=None):
    """The `Anatomy` of a traced model."""
    if not towers.embeds:
        notes = ["tower: none; the inputs are joined at once, so there are no embeddings"]
    elif towers.is_shared:
        notes = [f"tower: {layers_of(towers.models[0])}, the same on each side"]
    else:
        names = ("left", "right", "third")[: towers.count]
        notes = [f"{side} tower: {layers_of(one)}" for side, one in zip(names, towers.models, strict=True)]
    examined = Examined(towers)
    if examined.are_embeddings:  # the comparison is made in the loss
        wrapper = SiameseWrapper(towers.models[0], distance or "euclidean")
        notes.append(f"comparator: none in the model; {wrapper.distance!r} is used (`distance=` sets another)")
        return Anatomy(model, notes, wrapper=wrapper, towers=towers)
    refuse("distance", distance, model)
    comparator = towers.comparator or model
    notes.append(f"comparator: {layers_of(comparator)}")
    weighted = [layer.name for layer in comparator.layers if layer.weights]
    if weighted:
        notes.append(f"learned after the comparison: {', '.join(weighted)}")
    notes.append(
        {
            -1: "score: minus the output, which is lowest for equal embeddings",
            1: "score: the output, which is highest for equal embeddings",
            0: "score: the output; whether it grows with similarity is found from the loss and validation pairs",
        }[examined.end]
    )
    wrapper = examined.wrapper()
    anatomy = Anatomy(model, notes, wrapper=wrapper, towers=towers, **examined.output)
    anatomy.sample = sample
    if wrapper is None:
        anatomy.distance, anatomy.scale_free = own_distance(comparator), examined.scale_free
        anatomy.output_kind = "distance" if examined.end < 0 else "score"
    return anatomy


def layers_of(model):
    """The layers of a part of a model, by name; of a long part only its own name."""
    names = [one.name for one in getattr(model, "operations", [model]) if not isinstance(one, keras.layers.InputLayer)]
    return model.name if len(names) > 6 else " → ".join(names)


def own_distance(comparator):
    """The only `Distance` of this package that a layer of the `comparator` computes, or None."""
    found = [getattr(layer, "distance", None) for layer in comparator.layers]
    found = {repr(one): one for one in found if isinstance(one, Distance)}
    return next(iter(found.values())) if len(found) == 1 else None


class Examined:
    """A comparator, examined with random embeddings.

    Attributes:
        are_embeddings: whether the outputs are the embeddings themselves: the model compares in its loss.
        output: `{"place": …, "column": …, "compare": …}`: which output, and which of its columns, compares the first
            side with the second, and the function `(left, right) → (n, 1)` that gives it.
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

        self.output = {"place": place, "column": column, "compare": compare}

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


def are_pairs(model, x):
    """Whether `x` has both sides of what `model` compares, as the model takes them; otherwise `x` are items."""
    arrays = tree.flatten(x)
    is_list = isinstance(x, (tuple, list)) and len(x) in (2, 3)
    if shows_parts(model) or not is_functional(model):
        return is_list or (not shows_parts(model) and len(arrays) == 1 and towers_of(model, x) is not None)
    if len(model.inputs) == 1 and is_list:  # a pair for an encoder
        return True
    if len(model.inputs) == 1 and np.ndim(arrays[0]) != len(model.inputs[0].shape):
        return False
    towers = towers_of(model, x)
    if towers is None:  # a model that joins its inputs at once, or an encoder
        return joined(model, x) is not None and not is_encoder(model, x)
    if towers.axis is not None:
        return True
    if not towers.embeds and is_encoder(model, x):
        return False
    return len(arrays) in (2 * len(towers.inputs[0]), len(model.inputs))


def pairs_of(anatomy, x, y):
    """The items of both sides and the labels `(n,)`, from what the model takes; triplets give two pairs each."""
    arrays = in_order(anatomy.model, x)
    left, right, *negative = x if anatomy.parts is None else anatomy.parts.items(arrays)
    if not negative:
        return left, right, pair_labels(y, len(tree.flatten(left)[0]))
    left, right = (
        tree.map_structure(lambda *both: np.concatenate(both), *two) for two in ((left, left), (right, *negative))
    )
    return left, right, np.repeat([1, 0], len(arrays[0]))


def orient(anatomy, left, right, labels, *, x=None, y=None, similar_label=None, up=None):
    """Find out what the output means, from the loss, the comparator and pairs; sets `direction` and `output_kind`.

    Args:
        anatomy: an `Anatomy`.
        left, right: the items of each side, arrays `(n, …)` or dicts of such.
        labels: `(n,)`, of two values.
        x, y: the same pairs as the model and its loss take them, if they are known.
        similar_label: the label that means the same identity, if the user says so.
        up: whether the output grows with similarity, if the user says so.

    Returns:
        The `Direction`.
    """
    if anatomy.wrapper is not None:
        up = anatomy.output_kind == "score"
    low, high = np.unique(labels).tolist()
    few = slice(0, FEW)
    embedded = [ops.convert_to_tensor(one) for one in anatomy.embed([take(left, few), take(right, few)])]
    shifted = ops.roll(embedded[1], 1, axis=0)
    pairs = [embedded, [embedded[1], embedded[1]], [embedded[1], shifted]]
    outputs, equal, different = (ops.convert_to_numpy(anatomy.compare(*pair))[:, 0] for pair in pairs)
    loss = None if x is None else loss_of(anatomy, x, y, labels)
    if anatomy.compares_itself and loss is not None:
        anatomy.pair_loss, anatomy.labels = loss, (low, high)
    anatomy.direction = direction_of(
        (low, high),
        pulled=0 if loss is None else pull(loss, outputs, (low, high)),
        end=equal_end(equal, different) if anatomy.other is None else 0,
        is_learned=bool(anatomy.learned),
        closer=closer_label(tree.flatten(left), tree.flatten(right), labels),
        similar_label=similar_label,
        up=up,
    )
    anatomy.output_kind = "score" if anatomy.direction.up else "distance"
    return anatomy.direction


def loss_of(anatomy, x, y, labels):
    """The compiled loss of one pair as a function `(label, output) → float`; NaN if it cannot be evaluated."""
    model, rows, known = anatomy.model, slice(0, 4), []

    def predicted():
        if not known:
            few = tree.map_structure(lambda one: ops.convert_to_tensor(one[rows]), x)
            known.append(tree.map_structure(ops.convert_to_numpy, model(few, training=False)))
        return known[0]

    def loss(label, value):
        arrays = [one.copy() for one in tree.flatten(predicted())]
        flat = arrays[anatomy.place].reshape(len(arrays[anatomy.place]), -1)
        if flat.shape[1] == 2:
            flat[:] = 1 - value
        flat[:, anatomy.column] = value
        chosen = np.flatnonzero(labels == label)[:1].repeat(len(flat))
        targets = tree.map_structure(lambda one: ops.convert_to_tensor(one[chosen]), y)
        outputs = tree.pack_sequence_as(predicted(), [ops.convert_to_tensor(one) for one in arrays])
        return float(model.compute_loss(x=None, y=targets, y_pred=outputs))

    def or_nan(label, value):
        try:
            return loss(label, value)
        except Exception:  # an uncompiled model, or a loss of triplets: there is no loss of a pair
            return float("nan")

    return or_nan


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
