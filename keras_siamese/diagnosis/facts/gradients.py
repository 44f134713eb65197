"""Facts of gradients that are not finite: at which pairs one training step turns finite weights into NaN.

√d² has no finite derivative at d = 0, and ‖z‖ none at z = 0: the loss of such a pair is finite, its gradient is not,
and one step makes all weights NaN. Nothing is differentiated here: a step of training is taken from finite weights, and
the weights after it are looked at. All weights are put back.

Contract: the parts of a model and what `fit` was given in; numbers and rows out. Imports `attach`, `scoring`, `model`.

    of_gradients(observed)                # ({"equal_pairs": 15, "nan_at_equal": 1.0, …}, {"equal_pairs": [40, 140, …]})
"""

import logging
import warnings

import keras
import numpy as np
from keras import ops, tree

from keras_siamese._files import reason_of
from keras_siamese._replicas import train_on_batch, undistributed
from keras_siamese._seeds import own_seeds
from keras_siamese.attach.feed import gather
from keras_siamese.attach.graph import in_order, input_names
from keras_siamese.attach.orient import are_pairs
from keras_siamese.attach.towers import part
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.facts.batches import as_tensors, batches_of, is_pairs
from keras_siamese.diagnosis.facts.model import is_finite, make_new, restored, sampled_kernels, update_size
from keras_siamese.scoring import to_numpy

logger = logging.getLogger(__name__)

BATCH = 64  # pairs of a step
STEPS = 24  # steps that are taken with pairs that are neither equal nor zero
SOME = 32  # embeddings with which a comparator is examined


def of_gradients(observed):
    """`(numbers, rows)`: the places at which the gradient is not finite, and the training pairs that lie there.

    - nan_at_equal, nan_at_zero: whether a step is NaN at two equal embeddings, or at an embedding of zeros.
    - equal_pairs, zero_pairs: numbers of such training pairs, with their rows.
    - nan_elsewhere, nan_losses: share of the steps with other pairs that are NaN although their loss is finite, and
      share of them whose loss is not finite.
    - update_size_first, update_size_largest: how far a single such step moves the weights, if that is too far.
    """
    anatomy, found, rows = observed.siamese, {}, {}
    if anatomy is None or observed.fed is None:
        return found, rows
    model = anatomy.model
    optimizer = getattr(model, "optimizer", None)
    variables = [*model.variables, *getattr(optimizer, "variables", ()), *model.metrics_variables]
    try:
        with restored(variables), own_seeds(), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            make_new(model, only_broken=True)
            for variable in getattr(optimizer, "variables", ()):
                if not is_finite(variable):
                    variable.assign(np.zeros(variable.shape, variable.dtype))
            found, rows = places(anatomy, *fed_rows(model, observed.fed), is_training=observed.source is not None)
    except Exception as error:  # a user's own step may raise anything, as may steps of a model that is not compiled
        logger.info("The pairs at which a step is NaN are not looked for: a step raised %s", reason_of(error))
        return {}, {}
    return found, rows


def places(anatomy, x, y, is_training=True):
    """What `of_gradients` returns, from finite weights and the samples `x`, `y` as the model takes them."""
    model, count, found, rows = anatomy.model, len(tree.flatten(x)[0]), {}, {}
    sides = sides_of(anatomy, x)
    rest = np.arange(count)
    steps = Steps(model, x, y)
    if sides is not None:
        equal, zero = coincidences(anatomy, sides)
        found |= comparator_places(anatomy, [take_rows(side, slice(0, SOME)) for side in sides[:2]])
        rest = np.flatnonzero(~equal & ~zero)
        if is_training:
            found |= {"equal_pairs": int(equal.sum()), "zero_pairs": int(zero.sum())}
            rows = {"equal_pairs": np.flatnonzero(equal).tolist(), "zero_pairs": np.flatnonzero(zero).tolist()}
    if getattr(model, "optimizer", None) is None:
        return found, rows
    chunks = [rest[start : start + BATCH] for start in range(0, len(rest) - min(len(rest), BATCH) + 1, BATCH)][:STEPS]
    results = [steps.take(chunk) for chunk in chunks if len(chunk)]
    if results:
        is_nan, has_loss, sizes = map(np.array, zip(*results, strict=True))
        found |= {"nan_elsewhere": float(np.mean(is_nan & has_loss)), "nan_losses": float(np.mean(~has_loss))}
        # One step tells whether steps are too large. Whether they are too small, only an epoch of them tells.
        if np.isfinite(sizes).any() and np.nanmedian(sizes) > limits.LARGE_UPDATE:
            found |= dict.fromkeys(("update_size_first", "update_size_largest"), float(np.nanmedian(sizes)))
    if sides is not None and not (results and is_nan.all()):  # if all steps are NaN, these tell nothing
        some = rest[:BATCH] if len(rest) else np.arange(min(count, BATCH))
        at_equal = Steps(model, equalised(anatomy, x), y).take(some)[0]
        at_equal = at_equal or (equal.any() and steps.take(np.flatnonzero(equal))[0])
        at_zero = zero.any() and steps.take(np.flatnonzero(zero & ~equal if (zero & ~equal).any() else zero))[0]
        found["nan_at_equal"] = float(bool(at_equal) or found.get("nan_at_equal", 0.0) > 0)
        found["nan_at_zero"] = float(bool(at_zero) or found.get("nan_at_zero", 0.0) > 0)
    return found, rows


class Steps:
    """Training steps of `model` on rows of `x` and `y`, each from the same weights."""

    def __init__(self, model, x, y):
        self.model, self.x, self.y = model, x, y
        self.variables = [*model.variables, *getattr(model.optimizer, "variables", ())]

    def take(self, rows):
        """Take a step with these `rows`, repeated to one size of batch. Returns `(is_nan, has_loss, size)`: whether
        weights are not finite after it, whether its loss is finite, and how far it moves the weights.
        """
        rows = np.resize(rows, BATCH)
        x, y = (None if one is None else take_rows(one, rows) for one in (self.x, self.y))
        with restored([*self.variables, *self.model.metrics_variables]):
            before = sampled_kernels(self.model)
            self.model.reset_metrics()
            logs = train_on_batch(self.model, x, y)
            self.model.reset_metrics()
            is_nan = not all(map(is_finite, self.model.trainable_variables))
            size = update_size(before, sampled_kernels(self.model))
        return is_nan, bool(np.isfinite(logs.get("loss", np.nan))), size if np.isfinite(size) else np.nan


def take_rows(x, rows):
    return tree.map_structure(lambda one: one[rows], x)


def fed_rows(model, fed):
    """`(x, y)` as `model` takes them: arrays `(n, …)`, or some batches of a sequence, joined."""
    if isinstance(fed, (tuple, list)):
        return gather(fed)
    parts = batches_of(fed, STEPS)
    return tree.map_structure(lambda *arrays: np.concatenate(arrays), *[tuple(part) for part in parts])


def sides_of(anatomy, x):
    """The items of each side in `x`, a list; None if `x` are no pairs or the model has no embeddings."""
    if not anatomy.has_embeddings:
        return None
    if anatomy.parts is not None:
        return anatomy.parts.items(in_order(anatomy.model, x))
    return list(x) if is_pairs(x) and are_pairs(anatomy.model, x) else None


def equalised(anatomy, x):
    """`x` with the item of the first side on all sides."""
    towers = anatomy.parts
    if towers is None:
        return [x[0]] * len(x)
    arrays = list(in_order(anatomy.model, x))
    if towers.axis is not None:
        equal = np.array(arrays[0])
        for side in range(1, towers.count):
            part(equal, towers.axis, side, towers.count)[...] = part(equal, towers.axis, 0, towers.count)
        return tree.pack_sequence_as(x, [equal])
    for side in towers.inputs[1:]:
        for index, first in zip(side, towers.inputs[0], strict=True):
            arrays[index] = arrays[first]
    names = input_names(anatomy.model)
    by_name = isinstance(x, dict) and set(names) == set(x)
    return dict(zip(names, arrays, strict=True)) if by_name else tree.pack_sequence_as(x, arrays)


def coincidences(anatomy, sides):
    """`(equal, zero)`, each `(n,)`: whether two items of a sample have the same input or embedding, and whether one has
    an embedding of zeros.
    """
    count = len(tree.flatten(sides[0])[0])
    equal, zero = np.zeros(count, bool), np.zeros(count, bool)
    for other in sides[1:]:
        same = np.ones(count, bool)
        for one, two in zip(tree.flatten(sides[0]), tree.flatten(other), strict=True):
            same &= (np.asarray(one) == np.asarray(two)).reshape(count, -1).all(axis=1)
        left, right = embedded(anatomy, [sides[0], other])
        equal |= (same & (anatomy.other is None)) | (left == right).all(axis=1)
        zero |= (left == 0).all(axis=1) | (right == 0).all(axis=1)
    return equal, zero


def embedded(anatomy, sides, block=256):
    """Embeddings `(n, dim)` of the items of two sides, in inference mode."""
    count, parts = len(tree.flatten(sides[0])[0]), []
    for start in range(0, count, block):
        items = [as_tensors(take_rows(side, slice(start, start + block))) for side in sides]
        parts.append([to_numpy(one) for one in anatomy.embed(items)])
    return [np.concatenate(one) for one in zip(*parts, strict=True)]


def comparator_places(anatomy, sides):
    """Whether the gradient of the comparator is not finite at equal embeddings, and at an embedding of zeros; {} if it
    is finite at no pair of the items in `sides`.
    """
    left, right = embedded(anatomy, sides)
    kept = np.flatnonzero(np.any(left != right, axis=1) & np.any(left != 0, axis=1) & np.any(right != 0, axis=1))
    if not len(kept) or left.shape != right.shape:
        return {}
    left, right = left[kept], right[kept]

    def is_nan(*embeddings):
        return not all(np.isfinite(one).all() for one in gradient(anatomy.compare, *embeddings))

    if is_nan(left, right):
        return {}
    return {"nan_at_equal": float(is_nan(left, left)), "nan_at_zero": float(is_nan(np.zeros_like(left), right))}


class Held(keras.Model):
    """Arrays as the weights of a model, whose output is a function of them."""

    def __init__(self, function, arrays):
        super().__init__()
        self.function = function
        for number, array in enumerate(arrays):
            weight = self.add_weight(shape=array.shape, initializer="zeros", name=f"part_{number}")
            weight.assign(np.array(array))  # a copy: TensorFlow may share its memory and train it in place

    def call(self, inputs):
        return self.function(*[weight.value for weight in self.trainable_weights])


def gradient(function, *arrays):
    """Gradients of the mean of `function(*arrays)`, one for each array, by a step of SGD; the same on each backend.

    One array at a time is trained: TensorFlow may change a weight before another one's gradient has used it.
    """
    found, rows = [], np.zeros((len(arrays[0]), 1), "float32")
    for place, array in enumerate(arrays):
        before, after = ([ops.convert_to_tensor(one) for one in part] for part in (arrays[:place], arrays[place + 1 :]))
        model = Held(lambda held, before=before, after=after: function(*before, held, *after), [array])
        model.built = True
        model.compile(keras.optimizers.SGD(1.0), loss=lambda _, output: ops.mean(output), jit_compile=False)
        with undistributed():
            model.train_on_batch(rows, rows)
        found.append(array - to_numpy(model.trainable_weights[0].value))
    return found
