"""Verification scores from a model and held-out data.

Contract: a score is larger for more similar pairs: it is −distance, or the head's output. Only this module turns a
model into a siamese one and a distance into a score. Imports `layers`, `data` and `verification`.

    siamese = as_siamese(model)                      # a siamese model made of the model's own layers
    trials = Trials.of((x_valid, labels_valid))      # or (left, right, same), or a frozen PairSequence
    scored = score(siamese, trials)                  # .scores (n,), .trials.same (n,), .embeddings (items, dim)
    keras_siamese.verification.eer(trials.same, scored.scores)
"""

from dataclasses import dataclass
from functools import cached_property

import keras
import numpy as np
from keras import ops, tree

from keras_siamese._checks import check_labels, check_same
from keras_siamese.data import ExplicitPairs, PairSequence
from keras_siamese.data.sources import check_source, count_samples, encode, map_arrays, named_arrays, subset, take
from keras_siamese.layers import DistanceLayer, SiameseWrapper
from keras_siamese.layers.siamese import embedding_shape_of
from keras_siamese.verification import best_accuracy, cross_fitted_accuracy

MAX_PAIRS = 200_000  # drawn from a labelled set; 632 items have that many pairs
BLOCK = 65_536  # number of pairs compared at once
WHAT_IT_TAKES = "(x, labels), (left, right, same) or a frozen PairSequence"


def as_siamese(model, encoder=None, distance=None, items=None, unshared=False):
    """Return a `SiameseWrapper` that compares as `model` does and shares its layers and weights.

    Args:
        model: a `SiameseWrapper`; a functional model in which the inputs reach a `DistanceLayer` (or a
            `SiameseWrapper`) through the same layers; or an encoder with the output `(batch, dim)`. If one layer with
            weights lies between the distance and the output, it becomes the head.
        encoder: the encoder, a part of `model`. Needed only if it cannot be found.
        distance: how to compare the embeddings of an encoder, "cosine" by default. A model with a distance keeps it.
        items: samples `(n, …)` that will be compared. Needed for an encoder that does not know its output shape or has
            several inputs.
        unshared: whether a functional model with one encoder for each input is accepted, as `UnsharedTowers`.

    Raises:
        ValueError: if no encoder is found, or if `encoder` or `distance` contradicts the model.
    """
    if isinstance(model, SiameseWrapper):
        refuse("encoder", None if encoder is model.encoder else encoder, model)
        refuse("distance", distance, model)
        return model
    compared = comparisons(model)
    if encoder is not None:
        check_part(model, encoder)
    elif compared and isinstance(compared[0].operation, SiameseWrapper):
        if is_input(model, *compared[0].input_tensors):
            return as_siamese(compared[0].operation, None, distance)
    elif compared:
        towers = [tensor for node in compared for tensor in node.input_tensors]
        encoder = shared_encoder(model, towers)
        if encoder is None and unshared and len(towers) == 2:
            encoder = own_encoders(model, towers)
    elif is_encoder(model, items):
        encoder = model
    if encoder is None:
        raise ValueError(
            f"No encoder found in {getattr(model, 'name', model)!r} (a {type(model).__name__}): it is not a "
            "SiameseWrapper, its inputs do not reach a DistanceLayer through the same layers, and its output is not "
            "the embedding (batch, dim) of one input. Pass `encoder=`, the model from one input to its embedding"
        )
    if not compared:
        return SiameseWrapper(encoder, distance or "cosine")
    refuse("distance", distance, model)
    distances = {repr(node.operation.distance): node.operation.distance for node in compared}
    if len(distances) > 1:
        raise ValueError(f"{model.name!r} must compare embeddings by one distance; got {', '.join(distances)}")
    distance, head = compared[0].operation.distance, head_of(model, compared)
    if isinstance(encoder, list):
        return UnsharedTowers(*encoder, distance, head)
    return SiameseWrapper(encoder, distance, head=head)


class UnsharedTowers(SiameseWrapper):
    """A siamese model with two encoders: `encoder` embeds the left input, `other` embeds the right one."""

    def __init__(self, encoder, other, distance, head):
        super().__init__(encoder, distance, head=head, joint=False)
        self.other = other

    def embed(self, inputs, training=None, mask=None):
        left, right = inputs
        return [self.encoder(left, training=training), self.other(right, training=training)]


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


def comparisons(model):
    """Nodes (calls) of a `DistanceLayer` or `SiameseWrapper` from which a functional `model` computes its outputs."""
    found, seen, waiting = [], set(), list(known(model, "outputs") or [])
    while waiting:
        node = node_of(waiting.pop(0))
        is_new = id(node) not in seen
        seen.add(id(node))
        if is_new and isinstance(node.operation, (DistanceLayer, SiameseWrapper)):
            found.append(node)
        elif is_new:
            waiting += node.input_tensors
    return found


def known(model, name):
    """Return an attribute of the model, or None if Keras raises an error because the model has no graph."""
    try:
        return getattr(model, name, None)
    except ValueError:
        return None


def node_of(tensor):
    """The call of a layer that computes a symbolic tensor."""
    return tensor._keras_history.operation._inbound_nodes[tensor._keras_history.node_index]


def is_input(model, *tensors):
    """Whether all `tensors` are inputs of the functional `model`."""
    inputs = {id(tensor) for tensor in model.inputs}
    return bool(tensors) and all(id(tensor) in inputs for tensor in tensors)


def shared_encoder(model, towers):
    """Return the layer or model that computes every symbolic embedding in `towers` from an input.

    Return None if the towers have different layers: weights that are not shared, or preprocessing on one side only.
    """
    first, *others = towers
    if any(not is_same_path(model, first, other) for other in others):
        return None
    last = node_of(first)
    if is_input(model, *last.input_tensors):
        return last.operation if isinstance(last.operation, keras.layers.Layer) else None
    sources = inputs_behind(model, first)
    return keras.Model(sources[0], first) if len(sources) == 1 else None


def own_encoders(model, towers):
    """Return one model for each side, from an input of the functional `model` to its embedding in `towers`, or None."""
    sources = [inputs_behind(model, tower) for tower in towers]
    if any(len(source) != 1 for source in sources) or sources[0][0] is sources[1][0]:
        return None
    return [keras.Model(source[0], tower) for source, tower in zip(sources, towers, strict=True)]


def is_same_path(model, one, other):
    """Whether two tensors come from inputs of `model` through the same layers in the same order."""
    if is_input(model, one, other):
        return True
    histories = one._keras_history, other._keras_history
    if histories[0].operation is not histories[1].operation or histories[0].tensor_index != histories[1].tensor_index:
        return False
    sides = node_of(one).input_tensors, node_of(other).input_tensors
    return len(sides[0]) == len(sides[1]) > 0 and all(is_same_path(model, *pair) for pair in zip(*sides, strict=True))


def inputs_behind(model, tensor):
    """The distinct inputs of `model` from which `tensor` is computed."""
    if is_input(model, tensor):
        return [tensor]
    found = [source for one in node_of(tensor).input_tensors for source in inputs_behind(model, one)]
    return list({id(source): source for source in found}.values())


def head_of(model, compared):
    """Return the layer with weights that turns the distance into the output of a functional `model`, or None."""
    last = node_of(model.outputs[0])
    distances = {id(tensor) for node in compared for tensor in node.output_tensors}
    is_head = len(model.outputs) == len(compared) == 1 and {id(tensor) for tensor in last.input_tensors} == distances
    return last.operation if is_head and getattr(last.operation, "weights", []) else None


def is_encoder(model, items):
    """Whether `model` computes embeddings `(batch, dim)`, dim > 1, of one of the `items`, or of one input if None."""
    inputs = known(model, "inputs")
    if inputs and len(inputs) != (1 if items is None else len(named_arrays("items", items))):
        return False
    shape = known(model, "output_shape") if getattr(model, "built", False) else None
    if shape is None and items is not None and isinstance(model, keras.layers.Layer):
        try:
            shape = embedding_shape_of(model, map_arrays(lambda array: (None, *array.shape[1:]), items))
        except ValueError:
            return False
    return isinstance(shape, tuple) and len(shape) == 2 and shape[1] is not None and shape[1] > 1


@dataclass(frozen=True, eq=False)
class Trials:
    """A fixed list of comparisons between items. Each item is embedded once."""

    items: object  # array `(items, …)` or a dict of such arrays; lazy sources stay lazy (`data.sources.Rows`)
    left: np.ndarray  # `(n,)` rows of `items` that are compared with those in `right`
    right: np.ndarray
    same: np.ndarray  # `(n,)` bool, True = genuine
    identities: np.ndarray | None  # `(items,)` number of each item's identity; None if only pair labels are known
    names: np.ndarray | None = None  # `(identities,)` labels that the user gave; `names[identities]` are the items'
    rows: np.ndarray | None = None  # `(items,)` row of each item in the user's data (of its pair, if pairs were given)

    def __post_init__(self):
        genuine = int(np.count_nonzero(self.same))
        if not 0 < genuine < len(self.same):
            why = "" if self.identities is None else f": they have {len(np.unique(self.identities))} identities"
            raise ValueError(
                f"At least one genuine and one impostor comparison are needed; these {count_samples(self.items)} "
                f"samples give {genuine} genuine and {len(self.same) - genuine} impostor ones{why}"
            )

    @classmethod
    def of(cls, validation, *, max_items=None, max_pairs=MAX_PAIRS, similar_label=1, seed=0):
        """Make trials from `(x, labels)`, `(left, right, same)` or a frozen `PairSequence`.

        Args:
            max_items: number of items to keep from a labelled set, spread evenly over its identities; None keeps all.
            max_pairs: number of comparisons to draw from a labelled set, see `draw_pairs`.
            similar_label: the value in `same` that means the same identity, 1 or 0. A `PairSequence` has its own.
            seed: seed of the draw.

        Raises:
            ValueError: if no comparison is genuine or none is impostor, if lengths differ, if samples are not finite.
        """
        if isinstance(validation, cls):
            return validation
        if isinstance(validation, (PairSequence, ExplicitPairs)):
            return cls.from_sequence(validation)
        size = len(validation) if isinstance(validation, (tuple, list)) else None
        if size == 2:
            options = {"max_items": max_items, "max_pairs": max_pairs, "seed": seed}
            return cls.from_labels(*validation, **options, name="validation ")
        if size == 3:
            return cls.from_pairs(*validation, similar_label=similar_label)
        found = f"a {type(validation).__name__}" + ("" if size is None else f" of {size}")
        raise ValueError(f"`validation` must be {WHAT_IT_TAKES}; got {found}")

    @classmethod
    def from_labels(cls, x, labels, *, max_items=None, max_pairs=MAX_PAIRS, seed=0, name=""):
        """Make trials from samples `x` `(items, …)` with identities `labels` `(items,)`; errors begin with `name`."""
        x = check_source(f"{name}x", x)
        names, codes = encode(check_labels(f"{name}labels", labels, length=count_samples(x)))
        rng, kept = np.random.default_rng(seed), np.arange(len(codes))
        if max_items is not None and len(codes) > max_items:
            kept = spread_over_identities(codes, max_items, rng)
            x, codes = subset(x, kept), codes[kept]
        left, right = draw_pairs(codes, max_pairs, rng)
        return cls(x, left, right, codes[left] == codes[right], codes, names, kept)

    @classmethod
    def from_pairs(cls, left, right, same, *, similar_label=1):
        """Make trials from the pairs `left[i]`, `right[i]`, each `(n, …)`, with labels `same` `(n,)`."""
        left, right = check_source("validation left", left), check_source("validation right", right)
        shapes = [[(path[4:], array.shape) for path, array in named_arrays("side", side)] for side in (left, right)]
        if shapes[0] != shapes[1]:
            found = f"{shapes[0]} and {shapes[1]}"
            raise ValueError(f"`left` and `right` of `validation` must have the same shapes; got {found}")
        rows = np.arange(count_samples(left))
        same = check_same("validation same", same, length=len(rows))
        items = tree.map_structure(lambda *sides: np.concatenate([side[:] for side in sides]), left, right)
        same = same if similar_label == 1 else ~same
        return cls(items, rows, rows + len(rows), same, None, rows=np.tile(rows, 2))

    @classmethod
    def from_sequence(cls, sequence):
        """Make trials from the pairs that a frozen `PairSequence` or `ExplicitPairs` gives in every epoch."""
        if not sequence.frozen:
            given = "left, right, same" if isinstance(sequence, ExplicitPairs) else "labels"
            call = f"{type(sequence).__name__}(x, {given}, frozen=True)"
            raise ValueError(f"`validation` must be a frozen PairSequence: {call}")
        left, right, same = sequence.pairs()
        used, rows = np.unique(np.concatenate([left, right]), return_inverse=True)
        rows = rows.reshape(-1)
        identities = getattr(sequence, "labels", None)
        identities, names = (None, None) if identities is None else (identities[used], sequence.identities)
        return cls(subset(sequence.x, used), rows[: len(left)], rows[len(left) :], same, identities, names, used)

    def __len__(self):
        return len(self.same)

    def __deepcopy__(self, memo):
        # Trials never change, and KerasTuner copies its callbacks for every execution of a trial.
        return self

    @property
    def pair_identities(self):
        """`(left, right)` identities of each comparison, or `(None, None)` if they are not known."""
        if self.identities is None:
            return None, None
        return self.identities[self.left], self.identities[self.right]

    def balanced(self, seed=0):
        """Rows `(k,)` of a subset with as many genuine as impostor comparisons, for figures such as the accuracy."""
        kinds, rng = [np.flatnonzero(self.same), np.flatnonzero(~self.same)], np.random.default_rng(seed)
        size = min(map(len, kinds))
        kept = [rows if len(rows) == size else rng.choice(rows, size, replace=False) for rows in kinds]
        return np.sort(np.concatenate(kept))


def spread_over_identities(codes, max_items, rng):
    """Sorted rows of `max_items` samples, spread as evenly over their identities `codes` `(n,)` as possible.

    Each identity keeps at least two samples, or its only one, or is left out if `max_items` is too small for that.
    """
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    _, starts, sizes = np.unique(codes[order], return_index=True, return_counts=True)
    place = np.arange(len(codes)) - np.repeat(starts, sizes)
    # First every identity's first two samples, identities in random order, then the thirds, and so on.
    turn = np.repeat(rng.permutation(len(starts)), sizes)
    rank = np.lexsort((place, turn, np.maximum(place, 1)))
    return np.sort(order[rank[:max_items]])


def draw_pairs(codes, max_pairs, rng):
    """Draw at most `max_pairs` ≥ 2 pairs of samples with identities `codes` `(n,)`: rows `(left, right)`, left < right.

    If there are no more than `max_pairs` pairs, all are returned. Otherwise min(all, max_pairs // 2) genuine and
    min(all, the rest) impostor pairs are drawn. Each kind is a simple random sample without replacement.
    """
    n = len(codes)
    if n * (n - 1) // 2 <= max_pairs:
        return np.triu_indices(n, 1)
    # In the order of identities, the genuine partners of a place are the places from the next one to its block's end,
    # the impostor partners those from there on; each pair is counted at its first place.
    order = np.argsort(codes, kind="stable")
    _, starts, sizes = np.unique(codes[order], return_index=True, return_counts=True)
    block_end = np.repeat(starts + sizes, sizes)
    genuine = draw_partners(np.arange(1, n + 1), block_end, max_pairs // 2, rng)
    impostor = draw_partners(block_end, np.full(n, n), max_pairs - genuine.shape[1], rng)
    return tuple(np.sort(order[np.concatenate([genuine, impostor], axis=1)], axis=0))


def draw_partners(first, end, count, rng):
    """`count` distinct `(place, partner)`, first[place] ≤ partner < end[place], or all if there are fewer: `(2, k)`."""
    up_to = np.cumsum(end - first)
    total = int(up_to[-1])
    numbers = np.arange(total) if total <= count else np.sort(rng.choice(total, count, replace=False))
    place = np.searchsorted(up_to, numbers, side="right")
    return np.stack([place, end[place] - (up_to[place] - numbers)])


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """Trials with a model's `embeddings` `(items, dim)` and `scores` `(n,)`, larger = more similar."""

    trials: Trials
    embeddings: np.ndarray
    scores: np.ndarray

    @property
    def same(self):
        return self.trials.same

    @cached_property
    def is_finite(self):
        return bool(np.isfinite(self.scores).all() and np.isfinite(self.embeddings).all())

    @cached_property
    def accuracy(self):
        """`(accuracy, threshold)` on as many genuine as impostor pairs, with thresholds chosen on other identities.

        With too few identities, the folds are over pairs instead. With too few pairs for folds, the accuracy is NaN.
        """
        rows = self.trials.balanced()
        same, scores = self.same[rows], self.scores[rows]
        sides = [None if side is None else side[rows] for side in self.trials.pair_identities]
        for left, right in (sides, (None, None)):
            try:
                return cross_fitted_accuracy(same, scores, left, right)
            except ValueError:  # a fold leaves only one class, so no threshold can be chosen
                continue
        return float("nan"), best_accuracy(same, scores)[1]


def score(siamese, trials, batch_size=256):
    """Score `trials` with the siamese model `siamese`: `ScoredTrials`. Each item is embedded once."""
    embeddings = embed(siamese.encoder, trials.items, batch_size)
    others = embed(siamese.other, trials.items, batch_size) if isinstance(siamese, UnsharedTowers) else None
    scores = score_embeddings(siamese, embeddings, trials.left, trials.right, others)
    return ScoredTrials(trials, embeddings, scores)


def embed(encoder, x, batch_size=256):
    """Embed `x` `(n, …)`, or a dict of such arrays, in inference mode: `(n, dim)` float32."""
    # Not `predict`: it would build a data pipeline and a list of callbacks on every call.
    run = encoder.predict_on_batch if isinstance(encoder, keras.Model) else encoder
    starts = range(0, count_samples(x), batch_size)
    return np.concatenate([to_numpy(run(take(x, slice(i, i + batch_size)))) for i in starts])


def score_embeddings(siamese, embeddings, left, right, others=None):
    """Score the pairs of rows `left`, `right` `(n,)` of `embeddings` `(items, dim)`: `(n,)`, larger = more similar.

    The scores are float32 like the model's output, so a threshold means the same for both. `right` are rows of `others`
    `(m, dim)`, if given.
    """
    others = embeddings if others is None else others
    scores = np.empty(len(left), "float32")
    for start in range(0, len(left), BLOCK):
        block = slice(start, start + BLOCK)
        output = siamese.compare(embeddings[left[block]], others[right[block]])
        scores[block] = similarity(siamese, to_numpy(output)[:, 0])
    return scores


def similarity(siamese, output):
    """Turn the output of a siamese model, a distance or a score, into a score: larger = more similar."""
    return -output if siamese.output_kind == "distance" else output


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor).astype("float32")
