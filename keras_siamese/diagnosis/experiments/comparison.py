"""A user's encoder under another comparison or loss, as a program of its own.

Contract: `recompiled(program, options, observed)` gives a `Program` whose model has the same encoder, with the same
initial values and the same batches, but a comparison and a loss by the `options` (those named in `OPTIONS`). The
encoder itself is exchanged only if it is the one that is suspected.

    program = recompiled(program, {"margin": 1.0, "normalize": True}, observed)
"""

import copy
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import keras
import numpy as np
from keras import ops, tree

from keras_siamese.attach.anatomy import dissect
from keras_siamese.attach.orient import pairs_of
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.experiments.untouched import same_attributes
from keras_siamese.layers import SiameseWrapper
from keras_siamese.losses import ContrastiveLoss
from keras_siamese.losses.base import SiameseLoss

OF_LOSS = ("margin", "positives", "negatives", "distance")
OPTIONS = (*OF_LOSS, "normalize", "verify_distance", "head", "loss", "online", "shared", "trainable", "width")


def differing(program, options, observed):
    """Those of the `options` that change something in the program. A loss without a margin, say, has none to change."""
    anatomy, loss = program.anatomy, observed.loss
    config = loss.get_config() if isinstance(loss, SiameseLoss) else {}
    known = {"head", "loss", "trainable", "width"}
    if is_batchwise(loss):
        known |= {name for name in OF_LOSS if name in config and config[name] != options.get(name)} | {
            "verify_distance"
        }
    else:
        known |= {"distance"} | ({"margin"} if "margin" in config or not config else set())
        known |= {"online"} if getattr(loss, "mining", None) is not None else set()
        known |= {"shared"} if anatomy.other is not None else set()
    if not have_unit_norm(observed.valid.embeddings):
        known.add("normalize")
    return {name: value for name, value in options.items() if name in known and name in OPTIONS}


def is_batchwise(loss):
    """Whether the loss compares all items of a batch."""
    return isinstance(loss, SiameseLoss) and loss.kind == "batch"


def have_unit_norm(embeddings):
    return bool(np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=float(limits.EQUAL_NORMS)))


def recompiled(program, options, observed):
    """The program with another comparison, loss or encoder; None if the model has no embeddings or no such part."""
    anatomy = program.anatomy
    if not anatomy.has_embeddings or anatomy.encoder is None:
        return None
    encoder, settings = anatomy.encoder, []
    if options.get("trainable") is True:
        settings.append(partial(all_trainable, encoder))
    if options.get("normalize"):
        encoder = keras.Sequential([encoder, keras.layers.UnitNormalization()])
    if options.get("width"):  # everything else stays, so that it is the encoder alone that is tested
        changed = with_encoder(program, observed)
    else:
        of_kind = of_batches if is_batchwise(observed.loss) else of_pairs
        changed = of_kind(program, encoder, options, observed)
    if changed is None:
        return None
    model = changed.model
    with ExitStack() as stack:
        for setting in settings:
            stack.enter_context(setting())
        model.optimizer.build(model.trainable_variables)
    return replace(changed, settings=(*program.settings, *settings))


def with_encoder(program, observed):
    """The program with a usual encoder in place of its own; None if its inputs or its comparison do not allow it."""
    anatomy, sample = program.anatomy, sample_of(program, observed)
    is_free = is_batchwise(observed.loss) or anatomy.parts is None
    encoder = usual_encoder(sample, observed.valid.embeddings, is_free)
    if encoder is None:
        return None
    if is_batchwise(observed.loss):
        return of_batches(program, encoder, {}, observed)
    if anatomy.parts is None:
        model = SiameseWrapper(encoder, distance=anatomy.distance, head=anatomy.head)
        model(tuple(ops.convert_to_tensor(one[:1]) for one in program.batches.at(0)[0]))
        found = dissect(model)
    else:
        comparator, x = anatomy.comparator, program.batches.at(0)[0]
        takes = [] if comparator is None else [tuple(one.shape) for one in comparator.inputs]
        if takes != [encoder.output_shape] * 2 or not isinstance(x, (tuple, list)):
            return None
        model = Compared(encoder, comparator)
        model([ops.convert_to_tensor(one[:1]) for one in x])
        found = copy.copy(anatomy)
        found.model, found.encoder, found.wrapper = model, encoder, None
    model.compile(optimizer_like(program.model), loss=observed.loss)
    return replace(program, model=model, anatomy=found)


class Compared(keras.Model):
    """A model of two inputs, of which one `encoder` makes embeddings that the `comparator` compares."""

    def __init__(self, encoder, comparator):
        super().__init__()
        self.encoder, self.comparator = encoder, comparator

    def call(self, inputs, training=None):
        return self.comparator([self.encoder(one, training=training) for one in inputs], training=training)


def of_batches(program, encoder, options, observed):
    """A program whose loss compares all items of a batch."""
    config = observed.loss.get_config()
    config |= {name: value for name, value in options.items() if name in OF_LOSS and name in config}
    model = encoder if encoder is not program.model else keras.Sequential([encoder])
    model(tree.map_structure(lambda one: ops.convert_to_tensor(one[:1]), program.batches.at(0)[0]))
    model.compile(optimizer_like(program.model), loss=type(observed.loss).from_config(config))
    distance = options.get("verify_distance") or program.anatomy.distance
    return replace(program, model=model, anatomy=dissect(model, distance=distance))


def of_pairs(program, encoder, options, observed):
    """A program whose loss compares the pairs that it is shown."""
    anatomy, present = program.anatomy, observed.loss
    head = "logistic" if options.get("head") == "logistic" else None
    distance = options.get("distance") or anatomy.distance or "euclidean"
    as_given = False
    if head is not None:
        loss = "binary_crossentropy"
    elif isinstance(present, SiameseLoss) and present.expects == "distance" and not options.get("loss"):
        config = present.get_config() | {one: options[one] for one in ("margin",) if one in options}
        kind, as_given = type(present), True  # what it takes for the same is not what is tested
        if options.get("online") is False:  # all pairs in place of those that the loss mines
            kind, config = ContrastiveLoss, {one: config[one] for one in ("margin", "similar_label")}
        loss = kind.from_config(config)
    else:
        loss = ContrastiveLoss(margin=options.get("margin", 1.0))
    batches = Pairs(program.batches, anatomy, observed.genuine_label, as_given)
    try:
        model = SiameseWrapper(encoder, distance=distance, head=head)
        model(tuple(ops.convert_to_tensor(one[:1]) for one in batches.at(0)[0]))
        model.compile(optimizer_like(program.model), loss=loss)
    except (ValueError, TypeError):  # inputs of several parts, or a loss that does not fit
        return None
    return replace(program, model=model, anatomy=dissect(model), batches=batches)


class Pairs:
    """Batches as the user's model takes them, read as `((left, right), same)`; or with the labels `as_given`."""

    def __init__(self, batches, anatomy, similar_label, as_given=False):
        self.batches, self.anatomy, self.steps, self.as_given = batches, anatomy, batches.steps, as_given
        direction = anatomy.direction
        self.similar_label = similar_label if direction is None else direction.similar_label

    def at(self, step):
        x, y = self.batches.at(step)[:2]
        labels = np.asarray(tree.flatten(y)[0])
        labels = labels.argmax(axis=1) if labels.ndim == 2 and labels.shape[1] == 2 else labels.reshape(-1)
        left, right, _ = pairs_of(self.anatomy, x, np.arange(len(labels)) % 2)
        if self.as_given:
            return (left, right), labels.astype("float32")
        return (left, right), (labels == self.similar_label).astype("float32")


def optimizer_like(model):
    """A new optimizer with the options of that of `model`."""
    return type(model.optimizer).from_config(model.optimizer.get_config())


@contextmanager
def all_trainable(model):
    """Training may change all layers of `model` within the block."""
    layers = model._flatten_layers(include_self=True, recursive=True)
    variables = [one for layer in layers for one in (*layer._trainable_variables, *layer._non_trainable_variables)]
    with ExitStack() as stack:
        for layer in layers:
            stack.enter_context(same_attributes(layer, ("_trainable",)))
        for variable in variables:
            stack.enter_context(same_attributes(variable, ("trainable",)))
        for layer in layers:
            layer.trainable = True
        yield


def sample_of(program, observed):
    """Some items of the training batches, `(n, …)`; None if an item is not one array."""
    x = program.batches.at(0)[0]
    arrays = tree.flatten(x)
    shapes = {array.shape[1:] for array in arrays}
    return np.concatenate(arrays) if len(shapes) == 1 and arrays[0].dtype.kind in "fiu" else None


def usual_encoder(sample, embeddings, is_free):
    """A small encoder that suits most vectors and images, with inputs normalised as the `sample` `(n, …)` asks; None
    for other inputs. It has as many dimensions as `embeddings` `(n, dim)`, or its own number if it `is_free`; unit norm
    if they have it.
    """
    if sample is None or sample.ndim not in (2, 4) or np.prod(sample.shape[1:]) > limits.USUAL_INPUT:
        return None
    norm = keras.layers.Normalization(
        axis=None, mean=float(sample.mean()), variance=max(float(sample.var()), limits.TINY)
    )
    width = int(limits.USUAL_WIDTH)
    layers = [keras.Input(sample.shape[1:]), norm, keras.layers.Flatten()]
    dim = embeddings.shape[1]
    layers += [keras.layers.Dense(width, "relu"), keras.layers.Dense(max(dim, width // 4) if is_free else dim)]
    layers += [keras.layers.UnitNormalization()] * have_unit_norm(embeddings)
    return keras.Sequential(layers)
