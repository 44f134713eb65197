"""Verification scores from a model and held-out data.

Contract: a score is larger for more similar pairs: it is the model's own output, or −output where that falls with
similarity. `attach` understands the model; this module alone turns an output into a score. Imports `attach`, `data`
and `verification`.

    anatomy, trials = attach(model, (x_valid, labels_valid))     # or ([left, right], y), or whatever `fit` takes
    scored = score(anatomy, trials)                  # .scores (n,), .trials.same (n,), .embeddings (items, dim)
    keras_siamese.verification.eer(trials.same, scored.scores)
"""

import contextlib
from dataclasses import dataclass, replace
from functools import cached_property, partial

import keras
import numpy as np
from keras import ops, tree

from keras_siamese._checks import check_choice, check_integer, check_labels, check_model_input, check_same
from keras_siamese._replicas import is_in_memory, predict_on_batch
from keras_siamese._rowwise import rows_apart
from keras_siamese.attach.anatomy import check_model, dissect, is_pair
from keras_siamese.attach.feed import gather, is_batched
from keras_siamese.attach.orient import are_pairs, orient, pairs_of
from keras_siamese.attach.passing import Passing
from keras_siamese.data import ExplicitPairs, PairSequence
from keras_siamese.data.sequence import EpochSequence
from keras_siamese.data.sources import check_source, count_samples, encode, fed, named_arrays, subset, take
from keras_siamese.verification import best_accuracy
from keras_siamese.verification.crossfit import cross_fitted_decisions
from keras_siamese.verification.pairs import check_identities, check_pairs, draw_pairs

MAX_PAIRS = 200_000  # drawn from a labelled set; 632 items have that many pairs
FEW = 1000  # pairs from which the direction of an output is found
BATCH_SIZE = 64  # items that are embedded at once: the activations of more do not stay in a processor's cache
BLOCK = 65_536  # most pairs that are compared at once …
CACHED = 2**20  # … and most numbers in a side of them, if that leaves 1,024 pairs: more do not stay in the cache
NUMBERS = 8_000_000  # numbers in the items of such pairs, where the items themselves are compared
WHAT_IT_TAKES = "(x, labels), (left, right, same), ([left, right], y) as fit takes pairs, or a frozen PairSequence"


def attach(model, validation, *, encoder=None, distance=None, score=None, similar_label=None, **options):
    """Understand `model`, and read `validation` as it takes it: `(Anatomy, Trials)`.

    Args:
        model: any Keras model that compares two or three items, or an encoder; see `attach.anatomy.dissect`.
        validation: what `Trials.of` takes; or pairs as the model takes them: `(x, y)` or `(x, y, sample_weight)`, or a
            data set or generator of such batches. Which one it is follows from the model: `x` with both sides of the
            model holds pairs, `x` with one side holds items, and `y` their identities.
        encoder, distance, score: override what is found in the model; see `dissect`.
        similar_label: the label of pairs that means the same identity. By default it is found for pairs as the model
            takes them, and 1 otherwise.
        **options: those of `Trials.of`, of a labelled set.

    Raises:
        ValueError: see `Trials.of` and `dissect`.
    """
    parts = {"encoder": encoder, "distance": distance, "score": score}
    if is_batched(validation) and not isinstance(validation, (Trials, PairSequence, ExplicitPairs)):
        validation = gather(validation)
    check_model("model", model)
    takes_pairs = is_pair if score is not None else partial(are_pairs, model)
    if isinstance(validation, (tuple, list)) and len(validation) in (2, 3) and takes_pairs(validation[0]):
        x, y = gather(validation)
        if score is None:
            check_model_input("validation", x, called=True)
        anatomy = dissect(model, x, **parts)
        left, right, labels = pairs_of(anatomy, x, y)
        check_kinds(left, right)
        direction = orient(anatomy, left, right, labels, x=x, y=y, similar_label=similar_label)
        return anatomy, Trials.from_pairs(left, right, labels == direction.similar_label).distinct()
    if isinstance(validation, (tuple, list)) and len(validation) == 2:
        check_items("validation", *validation)
    trials = Trials.of(validation, similar_label=similar_label, **options)
    few = fed(take(trials.items, slice(0, 4)))
    anatomy = dissect(model, few, **parts)
    is_theirs = anatomy.compares_itself and anatomy.wrapper is not model
    if is_theirs and trials.names is not None and set(trials.names.tolist()) == {0, 1}:
        given = "`validation` gives one input, with the labels 0 and 1 of only two identities"
        raise ValueError(f"{given}; {model.name!r} compares two inputs. Pairs are given as ((left, right), y)")
    if anatomy.wrapper is None and anatomy.encoder is not None:
        rows = spread_over_kinds(trials.same, FEW, np.random.default_rng(0))
        left, right = (take(trials.items, side[rows]) for side in (trials.left, trials.right))
        orient(anatomy, left, right, trials.same[rows].astype(int), similar_label=1)
    return anatomy, trials


def check_similar_label(similar_label):
    """Return the user's `similar_label`, if it can be a label of pairs."""
    return check_choice("similar_label", similar_label, (None, -1, 0, 1))


def check_kinds(left, right):
    """Raise if one side of pairs holds strings where the other holds numbers."""
    kinds = [[array.dtype.kind in "USO" for array in tree.flatten(side)] for side in (left, right)]
    if kinds[0] != kinds[1]:
        raise TypeError("`left` and `right` of `validation` must both hold strings, or numbers; got one of each")


def check_items(name, x, labels):
    """Refuse `(left, right)`, where the right samples stand in the place of labels."""
    shapes = [[np.shape(array)[1:] for array in tree.flatten(part)] for part in (x, labels)]
    if shapes[0] == shapes[1] and shapes[0] and shapes[0][0] not in ((), (1,)):
        found = f"samples of the shape {shapes[1][0]} in the place of labels"
        how = "Pairs are given as ((left, right), y), also in each batch of a data set or DataLoader"
        raise ValueError(f"`{name}` must hold samples with labels `(n,)`; got {found}. {how}")


def readable(data):
    """`data` that can be read more than once: a generator and other batches of pairs are read into arrays, also if
    they are given as `fit` takes them, `(batches, None)`.
    """
    if isinstance(data, (tuple, list)) and len(data) == 2 and data[1] is None and is_batched(data[0]):
        data = data[0]
    is_known = data is None or isinstance(data, (Trials, EpochSequence))
    return data if is_known or not is_batched(data) else gather(data)


def needs_model(data):
    """Whether `data` may be pairs as a model takes them, so that only the model tells how to read them."""
    if data is None or isinstance(data, Passing):
        return True
    if not isinstance(data, tuple):
        return False
    columns = getattr(data[1], "shape", ())[1:] if len(data) > 1 else ()
    return isinstance(data[0], (tuple, list)) or columns not in ((), (1,))  # one-hot labels are no identities


def may_be_items(data):
    """Whether `data` may be samples with their identities: a sequence that has them, or `(x, labels)`."""
    if isinstance(data, EpochSequence):
        return hasattr(data, "labels")
    return isinstance(data, (tuple, list)) and len(data) == 2 and data[1] is not None and not needs_model(data)


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
                f"`{'same' if self.identities is None else 'labels'}` must give at least one genuine and one impostor "
                f"comparison; these {count_samples(self.items)} samples give {genuine} genuine and "
                f"{len(self.same) - genuine} impostor ones{why}"
            )

    @classmethod
    def of(cls, validation, *, similar_label=None, **options):
        """Make trials from `(x, labels)`, `(left, right, same)` or a frozen `PairSequence`.

        Args:
            similar_label: the value in `same` that means the same identity, 1 or 0. A `PairSequence` has its own.
            **options: `max_items`, `max_each`, `least_items`, `max_pairs` and `seed` of `from_labels`.

        Raises:
            ValueError: if no comparison is genuine or none is impostor, if lengths differ, if samples are not finite.
        """
        if isinstance(validation, cls):
            return validation
        if isinstance(validation, (PairSequence, ExplicitPairs)):
            return cls.from_sequence(validation)
        size = len(validation) if isinstance(validation, (tuple, list)) else None
        if size == 2:
            return cls.from_labels(*validation, **options, name="validation ")
        if size == 3:
            return cls.from_pairs(*validation, similar_label=check_choice("similar_label", similar_label, (None, 0, 1)))
        found = f"a {type(validation).__name__}" + ("" if size is None else f" of {size}")
        raise ValueError(f"`validation` must be {WHAT_IT_TAKES}; got {found}")

    @classmethod
    def from_labels(
        cls, x, labels, *, max_items=None, max_each=None, least_items=0, max_pairs=MAX_PAIRS, seed=0, name=""
    ):
        """Make trials from samples `x` `(items, …)` with identities `labels` `(items,)`; errors begin with `name`.

        Args:
            max_items: number of items to keep, spread evenly over the identities; None keeps all.
            max_each: the same as a number for each identity, but at least `least_items` in all; None sets no limit.
            max_pairs: number of comparisons to draw, see `draw_pairs`.
            seed: seed of the draw.
        """
        x = check_source(f"{name}x", x)
        names, codes = encode(check_labels(f"{name}labels", labels, length=count_samples(x)))
        rng, kept = np.random.default_rng(check_integer("seed", seed, low=0)), np.arange(len(codes))
        most = len(codes) if max_items is None else max_items
        if max_each is not None:
            most = min(most, max(least_items, max_each * len(names)))
        if len(codes) > most:
            kept = spread_over_identities(codes, most, rng)
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
        check_kinds(left, right)
        rows = np.arange(count_samples(left))
        same = check_same("validation same", same, length=len(rows))
        items = tree.map_structure(lambda *sides: np.concatenate([side[:] for side in sides]), left, right)
        same = ~same if similar_label == 0 else same
        return cls(items, rows, rows + len(rows), same, None, rows=np.tile(rows, 2))

    def distinct(self):
        """The same comparisons of distinct items, so that an item that is in several pairs is embedded once."""
        parts = [np.ascontiguousarray(array) for _, array in named_arrays("items", self.items)]
        if any(array.dtype.hasobject or array.dtype.itemsize == 0 for array in parts):
            return self
        rows = np.concatenate([array.reshape(len(array), -1).view(np.uint8) for array in parts], axis=1)
        keys = rows.view(np.dtype((np.void, rows.shape[1])))[:, 0]
        _, first, place = np.unique(keys, return_index=True, return_inverse=True)
        order = np.argsort(first)  # items stay in the order in which they come first
        kept, place = first[order], np.argsort(order)[place.reshape(-1)]
        rows = None if self.rows is None else self.rows[kept]
        return replace(self, items=subset(self.items, kept), left=place[self.left], right=place[self.right], rows=rows)

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


def spread_over_kinds(same, most, rng):
    """Sorted rows of `most` of the pairs `same` `(n,)` bool, spread as evenly over genuine and impostor as possible.

    Of pairs that a program draws at random, hardly any are genuine, and a plain sample of them might have none.
    """
    order = rng.permutation(len(same))
    place = np.where(same[order], np.cumsum(same[order]), np.cumsum(~same[order]))
    return np.sort(order[np.argsort(place, kind="stable")[:most]])


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
        same, scores = check_pairs(self.same[rows], self.scores[rows])
        sides = [None if side is None else side[rows] for side in self.trials.pair_identities]
        accepted = cross_fitted_decisions(same, scores, check_identities(*sides, len(same)), folds=10, seed=0)
        if accepted is None:  # a fold leaves only one class, so no threshold can be chosen
            accepted = cross_fitted_decisions(same, scores, None, folds=10, seed=0)
        accuracy = float("nan") if accepted is None else float((accepted == same).mean())
        return accuracy, best_accuracy(same, scores)[1]


def score(siamese, trials, batch_size=BATCH_SIZE, exactly=False):
    """Score `trials` with the siamese model `siamese`: `ScoredTrials`. Each item is embedded once.

    If the model has no embeddings, it is called on the pairs themselves, and `ScoredTrials.embeddings` has the shape
    `(items, 0)`. `exactly` says that the model itself must compare the embeddings, for a threshold that it is to apply
    to these pairs again: what is computed elsewhere may differ in the last digit.
    """
    if getattr(siamese, "has_embeddings", True):
        embeddings = embed(siamese.encoder, trials.items, batch_size)
        other = getattr(siamese, "other", None)  # the right side's own encoder
        others = None if other is None else embed(other, trials.items, batch_size)
        scores = score_embeddings(siamese, embeddings, trials.left, trials.right, others, exactly)
    else:
        embeddings, scores = np.empty((count_samples(trials.items), 0), "float32"), score_items(siamese, trials)
    if not has_finite_weights(getattr(siamese, "model", siamese)):
        scores[:] = np.nan  # on some backends max(NaN, 0) is 0, so the embeddings may look sound
    return ScoredTrials(trials, embeddings, scores)


def score_items(siamese, trials):
    """Score `trials` by the items themselves, of a model without embeddings: `(n,)`, larger = more similar."""
    sizes = [np.prod(array.shape[1:], dtype=float) for _, array in named_arrays("items", trials.items)]
    scores, rows = np.empty(len(trials), "float32"), max(1, int(NUMBERS / (2 * max(sum(sizes), 1))))
    for start in range(0, len(trials), rows):
        block = slice(start, start + rows)
        items = [fed(take(trials.items, side[block])) for side in (trials.left, trials.right)]
        scores[block] = similarity(siamese, to_numpy(siamese.compare(*siamese.embed(items)))[:, 0])
    return scores


def embed(encoder, x, batch_size=256, name="x"):
    """Embed `x` `(n, …)`, or a dict of such arrays, in inference mode: `(n, dim)` float32. Errors call it `name`."""
    with naming(name, x, encoder):
        return predict(encoder, x, batch_size, name).astype("float32", copy=False)


def predict(model, x, batch_size=256, name="x"):
    """What `model` returns for `x` `(n, …)` in inference mode, arrays `(n, …)`; in blocks of at most `batch_size` rows.

    On several devices, each device computes every block. So the number of rows need not be a multiple of the number of
    devices, as it must be for Keras's `predict` on JAX.
    """
    # Not `predict`: it would build a data pipeline and a list of callbacks on every call.
    run = partial(predict_on_batch, model) if isinstance(model, keras.Model) else model
    parts, done = [], 0
    for rows in equal_blocks(count_samples(x), batch_size):  # of one length, for which a backend compiles once
        block = fed(take(x, rows), name)
        # Keras joins what the replicas of a TensorFlow strategy return: each has the whole block.
        new, done = slice(done - rows.start, count_samples(block)), rows.stop
        parts.append(tree.map_structure(lambda part, new=new: ops.convert_to_numpy(part)[new], run(block)))
    return tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)


@contextlib.contextmanager
def naming(name, x, encoder=None):
    """Name the argument `x` in the error of Keras or its backend, if the model does not take such samples, and say what
    the `encoder` takes.
    """
    arrays = named_arrays(name, x)
    is_text = any(getattr(array.dtype, "kind", "U") in "US" for _, array in arrays)  # a tensor of `fed` has no kind
    try:
        yield
    except Exception as error:
        taken = input_shape_of(encoder) if len(arrays) == 1 else None
        is_other = taken is not None and not fits(arrays[0][1].shape, taken)
        # An error of this package names its argument. Other kinds may come from anywhere, unless strings are given.
        if str(error).startswith("`") or not (is_text or is_other or isinstance(error, ValueError)):
            raise
        shapes = ", ".join(f"{path} {tuple(array.shape)}" for path, array in arrays)
        wanted = ""
        if is_other:
            wanted = f", ({', '.join(['n', *('…' if size is None else str(size) for size in taken[1:])])})"
            if len(arrays[0][1].shape) == len(taken) - 1:
                shapes += f" (one sample is given as `{name}[None]`)"
        raise ValueError(f"`{name}` must hold samples that the model takes{wanted}; got {shapes}: {error}") from error


def input_shape_of(encoder):
    """The shape `(None, …)` of the one array that an `encoder` takes; None if that is not known."""
    shape = getattr(encoder, "input_shape", None)
    return shape if isinstance(shape, tuple) and all(isinstance(size, int) for size in shape[1:] if size) else None


def fits(shape, taken):
    """Whether an array of this shape can be of the shape `taken`, in which None is any length."""
    return len(shape) == len(taken) and all(one in (None, size) for one, size in zip(taken, shape, strict=True))


def has_finite_weights(model):
    """Whether no weight of `model` is NaN or infinite."""
    floats = [weight for weight in model.weights if "float" in keras.backend.standardize_dtype(weight.dtype)]
    if is_in_memory():
        return all(bool(np.isfinite(ops.convert_to_numpy(weight)).all()) for weight in floats)
    return all(bool(ops.all(ops.isfinite(weight))) for weight in floats)


def score_embeddings(siamese, embeddings, left, right, others=None, exactly=True):
    """Score the pairs of rows `left`, `right` `(n,)` of `embeddings` `(items, dim)`: `(n,)`, larger = more similar.

    The scores are float32 like the model's output, so a threshold means the same for both. `right` are rows of `others`
    `(m, dim)`, if given. `exactly` is that of `score`.
    """
    others = embeddings if others is None else others
    distances = None
    if not exactly and getattr(siamese, "compares_by_wrapper", False):
        distances = rows_apart(siamese.distance, embeddings, others, left, right)
    if distances is not None:
        head = siamese.head
        return similarity(siamese, distances if head is None else to_numpy(head(distances[:, None]))[:, 0])
    scores = np.empty(len(left), "float32")
    most = min(BLOCK, max(1024, CACHED // max(1, embeddings.shape[1])))
    for block in equal_blocks(len(left), most):
        output = siamese.compare(embeddings[left[block]], others[right[block]])
        scores[block] = similarity(siamese, to_numpy(output)[:, 0])
    return scores


def equal_blocks(count, most):
    """Slices that cover `range(count)`, all of one length of at most `most`, for which a backend compiles only once.

    The last one begins before the end of the one before it, if need be.

    >>> equal_blocks(10, 4)
    [slice(0, 4, None), slice(4, 8, None), slice(6, 10, None)]
    """
    length = max(1, -(-count // max(1, -(-count // most))))
    return [slice(end - length, end) for end in (min(start + length, count) for start in range(0, count, length))]


def similarity(siamese, output):
    """Turn the output of a siamese model, a distance or a score, into a score: larger = more similar."""
    return -output if siamese.output_kind == "distance" else output


def negated(siamese):
    """What the scores of a siamese model are the negative of, its "distance" or "output"; None of a score."""
    if siamese.output_kind != "distance":
        return None
    return "output" if getattr(siamese, "distance", None) is None else "distance"


def to_numpy(tensor):
    return ops.convert_to_numpy(tensor).astype("float32")
