"""A user's encoder under another comparison or loss, as a program of its own.

Contract: `recompiled(program, options, observed)` gives a `Program` whose model has the same encoder, with the same
initial values and the same batches, but a comparison and a loss by the `options` (those named in `OPTIONS`). The
encoder itself is exchanged only if it is the one that is suspected.

    program = recompiled(program, {"margin": 1.0, "normalize": True}, observed)
"""

import copy
import logging
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import partial

import keras
import numpy as np
from keras import ops, tree

from keras_siamese._files import reason_of
from keras_siamese.attach.anatomy import dissect
from keras_siamese.attach.orient import orient, pairs_of
from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.experiments.untouched import same_attributes
from keras_siamese.layers import SiameseWrapper
from keras_siamese.losses import ContrastiveLoss
from keras_siamese.losses.base import SiameseLoss

logger = logging.getLogger(__name__)

OF_LOSS = ("margin", "positives", "negatives", "distance")
OPTIONS = (*OF_LOSS, "temperature", "normalize", "verify_distance", "head", "loss", "online", "shared")
OPTIONS += ("trainable", "width", "input_scale")


def differing(program, options, observed):
    """Those of the `options` that change something in the program. A loss without a margin, say, has none to change."""
    anatomy, loss = program.anatomy, of_whole(observed.loss)
    config = loss.get_config() if isinstance(loss, SiameseLoss) else {}
    known = {"trainable", *REPLACED}
    if is_batchwise(loss):
        known |= {name for name in OF_LOSS if name in config and config[name] != options.get(name)}
        known |= {"verify_distance"} | ({"temperature"} if observed.character.cosine_temperature else set())
    else:
        known |= {"head", "loss", "distance"} | ({"margin"} if "margin" in config or not config else set())
        known |= {"online"} if getattr(loss, "mining", None) is not None else set()
        known |= {"shared"} if anatomy.other is not None else set()
    if not have_unit_norm(observed.valid.embeddings):
        known.add("normalize")
    return {name: value for name, value in options.items() if name in known and name in OPTIONS}


def of_whole(loss):
    """The `loss`, or the one that a `MatryoshkaLoss` on pairs or triplets also computes of cut embeddings.

    Other models than `SiameseWrapper` do not give it the comparisons of cut embeddings.
    """
    return loss.loss if getattr(loss, "cuts_outputs", False) else loss


def is_batchwise(loss):
    """Whether the loss takes items with their identities: it compares those of a batch, or each with class weights."""
    return isinstance(loss, SiameseLoss) and loss.kind in ("batch", "proxy")


def have_unit_norm(embeddings):
    return bool(np.allclose(np.linalg.norm(embeddings, axis=1), 1, atol=float(limits.EQUAL_NORMS)))


def recompiled(program, options, observed):
    """The program with another comparison, loss or encoder; None if the model has no embeddings or no such part."""
    anatomy = program.anatomy
    if not anatomy.has_embeddings or anatomy.encoder is None:
        return None
    replaced = next((how for name, how in REPLACED.items() if options.get(name)), None)
    if replaced is not None:  # everything else stays, so that this alone is tested
        return replaced(program, observed)
    encoder, settings = anatomy.encoder, program.settings
    if options.get("trainable") is True:
        settings = (*settings, partial(all_trainable, encoder))
    if options.get("normalize"):
        encoder = keras.Sequential([encoder, keras.layers.UnitNormalization()])
    of_kind = of_batches if is_batchwise(observed.loss) else of_pairs
    changed = of_kind(program, encoder, options, observed)
    return None if changed is None else replace(changed, settings=settings)


def with_usual_encoder(program, observed):
    """The program with a usual encoder in place of its own; None if its inputs or its comparison do not allow it."""
    anatomy, loss = program.anatomy, observed.loss
    is_free = getattr(loss, "kind", None) == "batch" or (anatomy.parts is None and not is_batchwise(loss))
    encoder = usual_encoder(sample_of(program), observed.valid.embeddings, is_free)
    return None if encoder is None else with_towers(program, observed, encoder)


def standardised(program, observed):
    """The program whose encoders begin with a layer that gives inputs the mean 0 and the standard deviation 1."""
    sample = sample_of(program)
    if sample is None or not sample.std():
        return None
    middle, spread = float(sample.mean(dtype=float)), float(sample.std(dtype=float))
    towers = [rescaled(one, sample, spread, middle) for one in program.anatomy.towers]
    return with_towers(program, observed, *towers)


def with_scaled_side(program, side, spread):
    """The model of `program`, for inputs that are `spread` times as large on one `side`, 0 or 1; None if it takes
    something else than two arrays.
    """
    towers = [program.anatomy.encoder, program.anatomy.other or program.anatomy.encoder]
    towers[side] = rescaled(towers[side], program.batches.at(0)[0][side], spread)
    found = with_towers(program, None, *towers, loss=program.model.loss)
    return None if found is None else found.model


def rescaled(encoder, sample, spread, middle=0.0):
    """A model that applies the `encoder` to inputs like the `sample` `(n, …)`, less `middle`, over `spread`."""
    scale = keras.layers.Rescaling(1 / spread, offset=-middle / spread)
    return keras.Sequential([input_like(sample), scale, encoder], name=f"rescaled_{encoder.name}")


def input_like(array):
    """The symbolic input of a model that takes arrays like `array` `(n, …)`."""
    return keras.Input(array.shape[1:], dtype="float32" if array.dtype.kind == "f" else array.dtype.name)


def with_towers(program, observed, left, right=None, loss=None):
    """The program with the encoder `left`, and `right` on the other side if it is given; the batches and the comparison
    stay, and the loss if no other one is given. None if the model takes something else than two arrays, or compares
    embeddings of another shape.
    """
    anatomy, loss = program.anatomy, observed.loss if loss is None else loss
    if is_batchwise(loss):
        return of_batches(program, left, {}, observed)
    x, wrapper, found = program.batches.at(0)[0], anatomy.wrapper, copy.copy(anatomy)
    if not isinstance(x, (tuple, list)) or len(x) != 2 or any(not hasattr(one, "shape") for one in x):
        return None
    if anatomy.parts is None and right is None:
        options = {"joint": wrapper.joint, "swap": wrapper.swap} if wrapper is anatomy.model else {}
        model = SiameseWrapper(left, distance=wrapper.distance, head=wrapper.head, **options)
        model(tuple(ops.convert_to_tensor(one[:1]) for one in x))
        found = dissect(model)
    else:
        inputs = [input_like(one) for one in x]
        embedded = [tower(one) for tower, one in zip((left, right or left), inputs, strict=True)]
        outputs = compared(anatomy, embedded)
        if outputs is None:
            return None
        model, loss = keras.Model(inputs, outputs), of_whole(loss)
        found.model, found.encoder, found.other, found.wrapper = model, left, right, None
    model.compile(optimizer_like(program.model), loss=loss)
    if anatomy.direction is not None:
        y = program.batches.at(0)[1]
        orient(found, *pairs_of(found, x, y), x=x, y=y, similar_label=anatomy.direction.similar_label)
    return replace(program, model=model, anatomy=found)


def compared(anatomy, embedded):
    """What the model of `anatomy` puts out for the symbolic embeddings of both sides; None if it compares others."""
    if anatomy.parts is None:
        return anatomy.wrapper.compare(*embedded)
    takes = [] if anatomy.comparator is None else [tuple(one.shape) for one in anatomy.comparator.inputs]
    return anatomy.comparator(embedded) if takes == [tuple(one.shape) for one in embedded] else None


def of_batches(program, encoder, options, observed):
    """A program whose loss compares all items of a batch, or an item with the weights of its class."""
    config = observed.loss.get_config()
    config |= {name: value for name, value in options.items() if name in OF_LOSS and name in config}
    if options.get("temperature"):
        config |= at_temperature(observed, config, options["temperature"])
    model = keras.Sequential([encoder, *classifier_of(program)])
    model(tree.map_structure(lambda one: ops.convert_to_tensor(one[:1]), program.batches.at(0)[0]))
    model.compile(optimizer_like(program.model), loss=type(observed.loss).from_config(config))
    distance = options.get("verify_distance", program.anatomy.distance) or getattr(observed.loss, "distance", None)
    return replace(program, model=model, anatomy=dissect(model, distance=distance))


def at_temperature(observed, config, value):
    """The options of a loss on cosines, of its `config`, by which it divides them by the temperature `value`."""
    present = observed.character.cosine_temperature
    factors = {"temperature": value / present} | dict.fromkeys(("scale", "alpha", "beta"), present / value)
    return {name: config[name] * factor for name, factor in factors.items() if name in config}


def classifier_of(program):
    """The layers that follow the embedding in a model with weights for each class; [] in an encoder."""
    own = {id(one) for one in program.anatomy.encoder.variables}
    layers = [] if program.model is program.anatomy.encoder else getattr(program.model, "layers", [])
    return [one for one in layers if one.variables and not own & {id(v) for v in one.variables}]


def of_pairs(program, encoder, options, observed):
    """A program whose loss compares the pairs that it is shown."""
    anatomy, present = program.anatomy, of_whole(observed.loss)
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
    except (ValueError, TypeError) as error:  # inputs of several parts, or a loss that does not fit
        logger.info("The comparison %s cannot be tried: %s", options, reason_of(error))
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


def sample_of(program):
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


REPLACED = {"width": with_usual_encoder, "input_scale": standardised}
