"""`from_pretrained`: an encoder from any Keras model that was trained on something else.

Contract: a functional or Sequential `keras.Model` in; a functional model with the same inputs out, which returns
embeddings `(batch, dim)`. The model is not copied: the encoder trains, or does not train, its weights.

    backbone = keras.applications.MobileNetV3Small(include_top=False, input_shape=(96, 96, 3))
    encoder = from_pretrained(backbone, pooling="gem", dim=64)
    siamese = SiameseWrapper(encoder, distance="cosine")
"""

from __future__ import annotations

from typing import Literal

import keras
from keras import tree

from keras_siamese._checks import check_choice, check_integer
from keras_siamese._export import export
from keras_siamese.attach.graph import inputs_of, is_functional, node_of
from keras_siamese.layers import GeneralizedMeanPooling1D, GeneralizedMeanPooling2D, TokenPooling

POOLINGS = ("avg", "max", "gem", "cls", None)
# What keras_hub calls the outputs of a text model, by whether they are to be pooled.
TOKENS, POOLED = "sequence_output", "pooled_output"


def from_pretrained(
    model: keras.Model,
    pooling: Literal["avg", "max", "gem", "cls"] | None = "avg",
    dim: int | None = None,
    normalize: bool = True,
    trainable: bool | int = False,
) -> keras.Model:
    """An encoder from a pretrained model: the model, pooling, a new `Dense` layer and `UnitNormalization`.

    The model may be one of `keras.applications`, a backbone of keras_hub with its dicts of inputs and outputs, or any
    other functional or Sequential one. If it ends in a softmax, as with `include_top=True`, its classifier is left out.
    Prepare the inputs as for the model itself, for example by its `preprocess_input`.

    Embeddings of a frozen model need not be computed in each epoch: see `frozen_embeddings`.

    Args:
        model: the pretrained model. It is not copied: its weights, and which of them train, are also the encoder's.
        pooling: how features become one embedding. Images `(batch, rows, columns, channels)`: "avg", "max" or "gem",
            the generalized mean, for features ≥ 0. Tokens `(batch, steps, channels)`: these, or "cls", the first
            token; padding is left out where the inputs have a `padding_mask` or Keras knows a mask. Features
            `(batch, channels)` need no pooling. If the output is a dict, its "sequence_output" is pooled, and None
            takes its "pooled_output".
        dim: the size of the embedding, by a `Dense` layer, or None for the features themselves.
        normalize: whether the encoder ends in `UnitNormalization`.
        trainable: False (default) freezes the model: it runs in inference mode in training too, dropout and
            BatchNormalization included. True trains all of it. A number n trains its last n layers with weights;
            BatchNormalization is then not counted, stays frozen and uses its averages.

    Returns:
        A functional `keras.Model` from the model's inputs to embeddings `(batch, dim)`.

    Raises:
        TypeError: if `model` is no Keras model.
        ValueError: if it has no graph, if its output cannot be pooled in this way, or for options out of range.

    >>> import keras, numpy as np, keras_siamese as ks
    >>> backbone = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(4, 3, activation="relu")])
    >>> encoder = ks.from_pretrained(backbone, pooling="gem", dim=3)
    >>> tuple(encoder(np.ones((2, 8, 8, 1))).shape), len(encoder.trainable_weights)
    ((2, 3), 3)
    """
    if not isinstance(model, keras.Model):
        raise TypeError(f"`model` must be a keras.Model; got {model!r} of type {type(model).__name__}")
    if not is_functional(model):
        hint = "Wrap it: keras.Model(inputs, model(inputs)) with inputs = keras.Input(…)"
        raise ValueError(f"`model` must be functional or a Sequential with an Input; {model.name!r} is neither. {hint}")
    check_choice("pooling", pooling, POOLINGS)
    if dim is not None:
        check_integer("dim", dim, low=1)
    model = with_features(without_top(model), pooling)
    set_trainable(model, trainable)
    inputs = tree.map_structure(
        lambda one: keras.Input(batch_shape=one.shape, dtype=one.dtype, name=node_of(one).operation.name),
        inputs_of(model),
    )
    embedding = pooled(Backbone(model, name="backbone")(inputs), pooling, inputs)
    if dim is not None:
        embedding = keras.layers.Dense(dim, name="embedding")(embedding)
    if normalize:
        embedding = keras.layers.UnitNormalization(dtype="float32", name="unit_norm")(embedding)
    return keras.Model(inputs, embedding, name=f"{model.name}_encoder")


@export
class Backbone(keras.layers.Layer):
    """A model inside of an encoder that runs in inference mode as long as it is frozen: none of its weights train.

    In Keras 3, ``model(inputs, training=False)`` in a functional model does not last: `fit` sets `training` again, and
    dropout is active in a frozen model.

    Args:
        model: a `keras.Model`; inputs `(batch, …)` and outputs are its own.
        **kwargs: `name` as in `keras.layers.Layer`.
    """

    def __init__(self, model, **kwargs):
        super().__init__(autocast=False, **kwargs)  # the model itself casts its inputs, by its own policy
        self.model = model

    def build(self, input_shape):
        self.built = True

    def call(self, inputs, training=None):
        return self.model(inputs, training=training if self.model.trainable_weights else False)

    def compute_output_spec(self, inputs, training=None):
        return self.model.compute_output_spec(inputs)

    def get_config(self):
        return {**super().get_config(), "model": keras.saving.serialize_keras_object(self.model)}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "model": keras.saving.deserialize_keras_object(config["model"])})


def without_top(model):
    """The part of a functional `model` before its classifier, if it ends in a softmax."""
    if len(model.outputs) != 1 or not is_softmax(node_of(model.outputs[0])):
        return model
    node = node_of(model.outputs[0])
    while not getattr(node.operation, "weights", ()) and len(node.input_tensors) == 1:
        before = node_of(node.input_tensors[0])
        if before is None or not before.input_tensors:
            return model
        node = before
    return keras.Model(inputs_of(model), node.input_tensors[0], name=model.name)


def is_softmax(node):
    operation = None if node is None else node.operation
    activation = getattr(operation, "activation", None)
    return isinstance(operation, keras.layers.Softmax) or activation is keras.activations.softmax


def with_features(model, pooling):
    """The part of `model` with one output: the features that are pooled, or that need no pooling."""
    outputs = getattr(model, "output", None)  # a Sequential has none, but one tensor in `outputs`
    outputs = outputs if isinstance(outputs, dict) else dict(enumerate(model.outputs))
    if len(outputs) == 1:
        return model
    key = POOLED if pooling is None else TOKENS
    if key not in outputs:
        hint = "Choose one: keras.Model(model.input, model.outputs[0])"
        found = f"it has the outputs {', '.join(map(repr, outputs))}"
        raise ValueError(f"`model` must have one output, or {key!r} with pooling={pooling!r}; {found}. {hint}")
    return keras.Model(inputs_of(model), outputs[key], name=model.name)


def set_trainable(model, trainable):
    """Freezes all of `model`, none of it, or all but its last `trainable` layers with weights."""
    if isinstance(trainable, bool):
        model.trainable = trainable
        return
    normalizing = keras.layers.BatchNormalization
    layers = [one for one in model.layers if one.weights and not isinstance(one, normalizing)]
    count = check_integer("trainable", trainable, low=1, high=len(layers))
    model.trainable = True
    last = {id(one) for one in layers[-count:]}
    for layer in model.layers:
        layer.trainable = id(layer) in last
    for layer in model._flatten_layers():
        if isinstance(layer, normalizing):
            layer.trainable = False


def pooled(features, pooling, inputs):
    """The `features` of a model as one vector for each sample, `(batch, channels)`."""
    rank = len(features.shape)
    if rank == 2:
        return features
    allowed = {3: ("avg", "max", "gem", "cls"), 4: ("avg", "max", "gem")}.get(rank, ())
    if pooling not in allowed:
        need = f"one of {', '.join(map(repr, allowed))}" if allowed else "left to the model, which has no axes to pool"
        raise ValueError(f"`pooling` must be {need} for features of shape {tuple(features.shape)}; got {pooling!r}")
    if rank == 4:
        layer = {"avg": keras.layers.GlobalAveragePooling2D, "max": keras.layers.GlobalMaxPooling2D}
        return layer.get(pooling, GeneralizedMeanPooling2D)(name="pooling")(features)
    layer = GeneralizedMeanPooling1D(name="pooling") if pooling == "gem" else TokenPooling(pooling, name="pooling")
    mask = inputs.get("padding_mask") if isinstance(inputs, dict) else None
    return layer(features) if mask is None else layer(features, mask=mask)
