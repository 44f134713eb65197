"""From a model and held-out data to verification scores: which pairs to compare, an embedding an item, a score a pair.

Contract: `as_siamese` finds the encoder in any model, `Trials` fixes the comparisons once, `score` embeds each item
once and gives `ScoredTrials`, whose `scores` are larger for more similar pairs: −distance, or the head's score. This is
the only place that turns a distance into a score. Imports `layers`, `data` and `verification`.

    siamese = as_siamese(model)                      # a SiameseWrapper over the model's own layers
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

MAX_PAIRS = 200_000  # of a labelled set; all pairs of 632 items
BLOCK = 65_536  # pairs compared at once
WHAT_IT_TAKES = "(x, labels), (left, right, same) or a frozen PairSequence"


def as_siamese(model, encoder=None, distance=None, items=None, unshared=False):
    """A `SiameseWrapper` that compares as `model` does, on the model's own layers and weights.

    Args:
        model: a `SiameseWrapper`; a functional model in which inputs reach a `DistanceLayer` (or a `SiameseWrapper`)
            through the same layers; or an encoder, whose output is `(batch, dim)`. A single layer with weights between
            the distance and the output is taken for the head.
        encoder: the encoder, where it cannot be found; a part of `model`.
        distance: for an encoder: how to compare, "cosine" by default. A model that has a distance keeps its own.
        items: samples `(n, …)` that will be compared; they tell an encoder that does not know its output shape, and a
            model with several inputs, for what they are.
        unshared: whether a functional model with an encoder of its own for each input is taken, as `UnsharedTowers`.

    Raises:
        ValueError: if no encoder is found (the message says how to pass it), or `encoder` or `distance` contradicts the
            model.
    """
    if isinstance(model, SiameseWrapper):
        refuse("encoder", None if encoder is model.encoder else encoder, model)
        refuse("distance", distance, model)
        return model
    compared = comparisons(model)
    if encoder is not None:
        check_part(model, encoder)
    elif compared and isinstance(compared[0].operation, SiameseWrapper):
        inner = compared[0].operation
        if is_input(model, *compared[0].input_tensors):
            return as_siamese(inner, None, distance)
    elif compared:
        towers = [tensor for node in compared for tensor in node.input_tensors]
        encoder = shared_encoder(model, towers)
        if encoder is None and unshared and len(towers) == 2:
            encoder = own_encoders(model, towers)
    elif is_encoder(model, items):
        encoder = model
    if encoder is None:
        raise ValueError(
            f"No encoder found in {getattr(model, 'name', model)!r} (a {type(model).__name__}): it is no "
            "SiameseWrapper, no inputs reach a DistanceLayer in it through the same layers, and it does not put out "
            "embeddings (batch, dim) of one input. Pass `encoder=`, the model from one input to its embedding"
        )
    if not compared:
        return SiameseWrapper(encoder, distance or "cosine")
    refuse("distance", distance, model)
    distances = {repr(node.operation.distance): node.operation.distance for node in compared}
    if len(distances) > 1:
        raise ValueError(f"{model.name!r} must compare embeddings by one distance; got {', '.join(distances)}")
    distance, head = compared[0].operation.distance, head_of(model, compared)
    return (
        UnsharedTowers(*encoder, distance, head)
        if isinstance(encoder, list)
        else SiameseWrapper(encoder, distance, head=head)
    )


class UnsharedTowers(SiameseWrapper):
    """Two encoders with weights of their own and a distance: `encoder` embeds the left input, `other` the right one."""

    def __init__(self, encoder, other, distance, head):
        super().__init__(encoder, distance, head=head, joint=False)
        self.other = other

    def embed(self, inputs, training=None, mask=None):
        left, right = inputs
        return [self.encoder(left, training=training), self.other(right, training=training)]


def refuse(name, value, model):
    if value is not None:
        raise ValueError(
            f"`{name}` must be None for {model.name!r} (a {type(model).__name__}), which has its own; got {value!r}"
        )


def check_part(model, encoder):
    """Refuses an `encoder` with weights that are not the weights of `model`: training would never reach it."""
    own = {id(weight) for weight in model.weights}
    foreign = sum(id(weight) not in own for weight in encoder.weights)
    if own and foreign:
        raise ValueError(
            f"`encoder` must be a part of {model.name!r}; {foreign} of the {len(encoder.weights)} weights of "
            f"{encoder.name!r} are not in it"
        )


def comparisons(model):
    """The calls (nodes) of a `DistanceLayer` or `SiameseWrapper` that the outputs of a functional `model` come from."""
    found, seen, waiting = [], set(), list(known(model, "outputs") or [])
    while waiting:
        history = waiting.pop(0)._keras_history
        if (id(history.operation), history.node_index) in seen:
            continue
        seen.add((id(history.operation), history.node_index))
        node = node_of(history)
        if isinstance(history.operation, (DistanceLayer, SiameseWrapper)):
            found.append(node)
        else:
            waiting += node.input_tensors
    return found


def known(model, name):
    """An attribute of a model that knows its graph, None of one that does not: Keras raises this or that."""
    try:
        return getattr(model, name, None)
    except ValueError:
        return None


def node_of(history):
    return history.operation._inbound_nodes[history.node_index]


def is_input(model, *tensors):
    """Whether all `tensors` are inputs of the functional `model`."""
    inputs = {id(tensor) for tensor in model.inputs}
    return bool(tensors) and all(id(tensor) in inputs for tensor in tensors)


def shared_encoder(model, towers):
    """What takes inputs of `model` to each of the symbolic embeddings `towers`, a layer or a chain of them; else None.

    Towers with layers of their own (unshared weights, one tower preprocessed) share no encoder.
    """
    first, *others = towers
    if any(not is_same_path(model, first, other) for other in others):
        return None
    history = first._keras_history
    if is_input(model, *node_of(history).input_tensors):
        return history.operation if isinstance(history.operation, keras.layers.Layer) else None
    sources = inputs_behind(model, first)
    return keras.Model(sources[0], first) if len(sources) == 1 else None


def own_encoders(model, towers):
    """The two models that take one input each of the functional `model` to the embeddings `towers`, or None."""
    sources = [inputs_behind(model, tower) for tower in towers]
    if any(len(source) != 1 for source in sources) or sources[0][0] is sources[1][0]:
        return None
    return [keras.Model(source[0], tower) for source, tower in zip(sources, towers, strict=True)]


def is_same_path(model, one, other):
    """Whether two tensors come from inputs of `model` through the same layers in the same order."""
    if is_input(model, one, other):
        return True
    one, other = one._keras_history, other._keras_history
    if one.operation is not other.operation or one.tensor_index != other.tensor_index:
        return False
    sides = node_of(one).input_tensors, node_of(other).input_tensors
    return len(sides[0]) == len(sides[1]) > 0 and all(is_same_path(model, *pair) for pair in zip(*sides, strict=True))


def inputs_behind(model, tensor):
    """Inputs of `model` that `tensor` is computed from, each once."""
    if is_input(model, tensor):
        return [tensor]
    before = node_of(tensor._keras_history).input_tensors
    found = [source for one in before for source in inputs_behind(model, one)]
    return list({id(source): source for source in found}.values())


def head_of(model, compared):
    """The one layer with weights that turns the distance into the output of a functional `model`, else None."""
    last = node_of(model.outputs[0]._keras_history)
    distances = {id(tensor) for node in compared for tensor in node.output_tensors}
    is_head = len(model.outputs) == len(compared) == 1 and {id(tensor) for tensor in last.input_tensors} == distances
    return last.operation if is_head and getattr(last.operation, "weights", []) else None


def is_encoder(model, items):
    """Whether `model` puts out embeddings `(batch, dim)`, dim > 1, of one of the `items` (of one input if None)."""
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
    """A fixed list of comparisons between items, each of which is embedded once.

    Attributes:
        items: array `(items, …)` or a dict of such arrays; what is read lazily stays so (`data.sources.Rows`).
        left, right: `(n,)` rows of `items` that each comparison takes.
        same: `(n,)` bool, True = genuine.
        identities: `(items,)` identity of each item, or None where only pair labels are known.
        names: `(identities,)` the labels as they were given, `names[identities]` those of the items; or None.
        rows: `(items,)` where each item is in what was given, of pairs the pair's number; or None.
    """

    items: object
    left: np.ndarray
    right: np.ndarray
    same: np.ndarray
    identities: np.ndarray | None
    names: np.ndarray | None = None
    rows: np.ndarray | None = None

    def __post_init__(self):
        genuine = int(np.count_nonzero(self.same))
        if not 0 < genuine < len(self.same):
            raise ValueError(
                f"The samples must make at least one genuine and one impostor comparison; these "
                f"{count_samples(self.items)} make {genuine} genuine and {len(self.same) - genuine} impostor ones"
                + ("" if self.identities is None else f": they have {len(np.unique(self.identities))} identities")
            )

    @classmethod
    def of(cls, validation, *, max_items=None, max_pairs=MAX_PAIRS, similar_label=1, seed=0):
        """Trials from `(x, labels)`, `(left, right, same)` or a frozen `PairSequence`.

        Args:
            max_items: items kept of a labelled set, spread evenly over its identities; None keeps all.
            max_pairs: comparisons drawn of a labelled set, see `draw_pairs`.
            similar_label: the value in `same` that means the same, 1 or 0. A `PairSequence` knows its own.
            seed: of the draw.

        Raises:
            ValueError: if there is no genuine or no impostor comparison, lengths differ, or samples are not finite.
        """
        if isinstance(validation, cls):
            return validation
        if isinstance(validation, (PairSequence, ExplicitPairs)):
            return cls.from_sequence(validation)
        if isinstance(validation, (tuple, list)) and len(validation) == 2:
            x, labels = validation
            return cls.from_labels(x, labels, max_items=max_items, max_pairs=max_pairs, seed=seed, name="validation ")
        if isinstance(validation, (tuple, list)) and len(validation) == 3:
            return cls.from_pairs(*validation, similar_label=similar_label)
        raise ValueError(f"`validation` must be {WHAT_IT_TAKES}; got {describe(validation)}")

    @classmethod
    def from_labels(cls, x, labels, *, max_items=None, max_pairs=MAX_PAIRS, seed=0, name=""):
        """Trials of samples `x` `(items, …)` with identities `labels` `(items,)`; `name` goes before them in errors."""
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
        """Trials of the pairs `left[i]`, `right[i]`, each `(n, …)`, with labels `same` `(n,)`."""
        left, right = check_source("validation left", left), check_source("validation right", right)
        shapes = [[(path[4:], array.shape) for path, array in named_arrays("side", side)] for side in (left, right)]
        if shapes[0] != shapes[1]:
            raise ValueError(
                f"`left` and `right` of `validation` must have the same shapes; got {shapes[0]}, {shapes[1]}"
            )
        pairs = count_samples(left)
        same = check_same("validation same", same, length=pairs)
        items = tree.map_structure(lambda *sides: np.concatenate([side[:] for side in sides]), left, right)
        rows = np.arange(pairs)
        same = same if similar_label == 1 else ~same
        return cls(items, rows, rows + pairs, same, None, rows=np.tile(rows, 2))

    @classmethod
    def from_sequence(cls, sequence):
        """Trials of the pairs that a frozen `PairSequence`, or `ExplicitPairs`, shows every epoch."""
        if not sequence.frozen:
            name = type(sequence).__name__
            given = "left, right, same" if isinstance(sequence, ExplicitPairs) else "labels"
            raise ValueError(f"`validation` must be a frozen PairSequence: {name}(x, {given}, frozen=True)")
        left, right, same = sequence.pairs()
        used, rows = np.unique(np.concatenate([left, right]), return_inverse=True)
        rows = rows.reshape(-1)
        identities = getattr(sequence, "labels", None)
        identities, names = (None, None) if identities is None else (identities[used], sequence.identities)
        return cls(subset(sequence.x, used), rows[: len(left)], rows[len(left) :], same, identities, names, used)

    def __len__(self):
        return len(self.same)

    def __deepcopy__(self, memo):
        # Nothing here changes, and KerasTuner copies its callbacks for every execution of a trial.
        return self

    @property
    def pair_identities(self):
        """`(left, right)` identities of each comparison, `(None, None)` where they are not known."""
        if self.identities is None:
            return None, None
        return self.identities[self.left], self.identities[self.right]

    def balanced(self, seed=0):
        """Rows `(k,)` of a subset with as many genuine as impostor comparisons, on which an accuracy has meaning."""
        genuine, impostor = np.flatnonzero(self.same), np.flatnonzero(~self.same)
        rng = np.random.default_rng(seed)
        size = min(len(genuine), len(impostor))
        kept = [rows if len(rows) == size else rng.choice(rows, size, replace=False) for rows in (genuine, impostor)]
        return np.sort(np.concatenate(kept))


def describe(value):
    """What `value` is, for an error: its type, and how many parts a tuple or list has."""
    return f"a {type(value).__name__}" + (f" of {len(value)}" if isinstance(value, (tuple, list)) else "")


def spread_over_identities(codes, max_items, rng):
    """Sorted rows of `max_items` of the samples, as even over their identities `codes` `(n,)` as these allow.

    An identity comes with two samples or, if it has but one, with that; where `max_items` is less than that of all
    identities, some are left out.
    """
    order = rng.permutation(len(codes))
    order = order[np.argsort(codes[order], kind="stable")]
    starts, sizes = blocks_of(codes[order])
    place = np.arange(len(codes)) - np.repeat(starts, sizes)
    # First every identity's first two samples, identities in random order, then the thirds, and so on.
    turn = np.repeat(rng.permutation(len(starts)), sizes)
    rank = np.lexsort((place, turn, np.maximum(place, 1)))
    return np.sort(order[rank[:max_items]])


def draw_pairs(codes, max_pairs, rng):
    """Rows `(left, right)`, left < right, of all pairs of samples if these are no more than `max_pairs`, else a draw.

    The draw holds min(all, max_pairs // 2) genuine and min(all, the rest) impostor pairs, each a simple random sample
    of all pairs of its kind: distinct, and every pair as likely as another.

    Args:
        codes: identities `(n,)`, integers.
        max_pairs: integer ≥ 2.
        rng: NumPy generator.
    """
    n = len(codes)
    if n * (n - 1) // 2 <= max_pairs:
        return np.triu_indices(n, 1)
    # In the order of identities, the genuine partners of a place are the places from the next one to its block's end,
    # the impostor partners those from there on; each pair is counted at its first place.
    order = np.argsort(codes, kind="stable")
    starts, sizes = blocks_of(codes[order])
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


def blocks_of(ordered):
    """Start and size `(K,)` of each run of equal values in the sorted array `ordered` `(n,)`."""
    starts = np.r_[0, np.flatnonzero(np.diff(ordered)) + 1]
    return starts, np.diff(np.r_[starts, len(ordered)])


@dataclass(frozen=True, eq=False)
class ScoredTrials:
    """Trials with what a model made of them.

    Attributes:
        trials: the comparisons.
        embeddings: `(items, dim)`.
        scores: `(n,)`, larger = more similar.
    """

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
        """`(accuracy, threshold)` on as many genuine as impostor pairs, each at a threshold from other identities.

        Identities too few to set some aside leave folds of pairs instead; pairs too few for that, an accuracy of NaN.
        """
        rows = self.trials.balanced()
        same, scores = self.same[rows], self.scores[rows]
        sides = [None if side is None else side[rows] for side in self.trials.pair_identities]
        for left, right in (sides, (None, None)):
            try:
                return cross_fitted_accuracy(same, scores, left, right)
            except ValueError:  # without a fold, one class is gone: there is no threshold to choose
                continue
        return float("nan"), best_accuracy(same, scores)[1]


def score(siamese, trials, batch_size=256):
    """`ScoredTrials` of `trials` under the `SiameseWrapper` `siamese`, embedding each item once."""
    embeddings = embed(siamese.encoder, trials.items, batch_size)
    others = embed(siamese.other, trials.items, batch_size) if isinstance(siamese, UnsharedTowers) else None
    scores = score_embeddings(siamese, embeddings, trials.left, trials.right, others)
    return ScoredTrials(trials, embeddings, scores)


def embed(encoder, x, batch_size=256):
    """Embeddings `(n, dim)`, float32, of `x` `(n, …)` or of a dict of such arrays, in inference mode."""
    # By the batch: `predict` would build a data pipeline and a set of callbacks for every epoch.
    run = encoder.predict_on_batch if isinstance(encoder, keras.Model) else encoder
    starts = range(0, count_samples(x), batch_size)
    return np.concatenate([to_numpy(run(take(x, slice(i, i + batch_size)))) for i in starts])


def score_embeddings(siamese, embeddings, left, right, others=None):
    """Scores `(n,)` of the pairs of rows `left`, `right` `(n,)` of `embeddings` `(items, dim)`; larger = more similar.

    They are float32, as the model's, so that a threshold among them means the same to both. With `others` `(m, dim)`,
    the rows `right` are of these.
    """
    others = embeddings if others is None else others
    sign = -1.0 if siamese.output_kind == "distance" else 1.0
    scores = np.empty(len(left), "float32")
    for start in range(0, len(left), BLOCK):
        block = slice(start, start + BLOCK)
        output = siamese.compare(embeddings[left[block]], others[right[block]])
        scores[block] = sign * to_numpy(output)[:, 0]
    return scores


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor).astype("float32")
