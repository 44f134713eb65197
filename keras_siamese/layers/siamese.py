"""`SiameseWrapper`: a siamese model of one encoder, with two or three inputs and a distance or probability as output.

Contract: each input is what the encoder takes: an array of any rank, a dict or a list of arrays, or a masked sequence.

    siamese = SiameseWrapper(encoder, distance="euclidean")
    siamese.compile("adam", loss=keras_siamese.losses.ContrastiveLoss())
    siamese.fit(keras_siamese.data.PairSequence(x, labels))
    siamese.encoder.predict(x)                                  # embeddings (n, dim)
"""

from __future__ import annotations

import contextlib
import contextvars
import inspect
from collections.abc import Iterator
from typing import Any, Literal

import keras
import numpy as np
from keras import ops, tree

from keras_siamese._checks import check_choice, check_model_input
from keras_siamese._export import export
from keras_siamese._replicas import refuse_workers
from keras_siamese._types import Data, DistanceLike, Self, Shape, Shapes, Tensor
from keras_siamese.distances import Distance
from keras_siamese.layers.distance import DistanceLayer, LogisticHead
from keras_siamese.ops import at_least_float32

# The model that takes a step of `fit` or `evaluate`. Each replica of a TensorFlow strategy is a thread with its own.
STEPPING: contextvars.ContextVar[Any] = contextvars.ContextVar("stepping", default=None)


@export
class SiameseWrapper(keras.Model):
    """A siamese network: one encoder embeds every input, and a distance compares the embeddings.

    d(a, b) = distance(encoder(a), encoder(b)); with `head`, p(same) = head(d).

    Call it on a tuple or list of two inputs `(left, right)` → `(batch, 1)`, or of three inputs
    `(anchor, positive, negative)` → `(batch, 2)`, the distances anchor–positive and anchor–negative. Inputs are arrays
    of any rank or, for an encoder with several inputs, dicts or lists of arrays. All must have the same shapes.

    Args:
        encoder: a `keras.Model` or layer from one input to an embedding `(batch, dim)`.
        distance: a name from `keras_siamese.distances.names()`, a `Distance`, or a function `(a, b) → (n,)`.
        head: with None the output is the distance; with "logistic" it is p(same) = σ(b − a·d) with learned a > 0. A
            layer is called on the distances, and its output must be a score that grows with similarity.
        joint: True (default) runs the encoder once over the concatenated inputs, with one set of BatchNormalization
            statistics; False runs it once for each input.
        swap: whether three inputs also give the distance positive–negative as a third column, `(batch, 3)`, as
            ``TripletLoss(swap=True)`` needs it.

    Raises:
        ValueError: if the encoder's output shape is not `(batch, dim)`, if the inputs differ in shape, or (in `fit`) if
            the loss cannot work on this output: an unreachable margin, or a distance loss on probabilities.

    >>> import keras, numpy as np, keras_siamese as ks
    >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.UnitNormalization()])
    >>> siamese = ks.SiameseWrapper(encoder, distance="cosine")
    >>> tuple(siamese((np.ones((5, 4)), np.zeros((5, 4)))).shape)
    (5, 1)
    """

    def __init__(
        self,
        encoder: keras.layers.Layer,
        distance: DistanceLike = "euclidean",
        head: Literal["logistic"] | keras.layers.Layer | None = None,
        joint: bool = True,
        swap: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if not isinstance(encoder, keras.layers.Layer):
            found = f"{encoder!r} of type {type(encoder).__name__}"
            raise TypeError(f"`encoder` must be a Keras model or layer; got {found}")
        self.encoder = encoder
        self.distance_layer = DistanceLayer(distance, swap=swap, name="distance")
        if head is not None and not isinstance(head, keras.layers.Layer):
            check_choice("head", head, (None, "logistic"))
            head = LogisticHead(*self.distance_bounds(), name="head")
        self.head = head
        self.joint = bool(joint)
        self.training_data = None

    @property
    def distance(self) -> Distance:
        """The `Distance` between embeddings."""
        return self.distance_layer.distance

    @property
    def swap(self) -> bool:
        """Whether three inputs give three distances."""
        return self.distance_layer.swap

    @property
    def output_kind(self) -> Literal["distance", "score"]:
        """ "distance" (smaller is closer) without a head, "score" (larger is more similar) with one."""
        return "distance" if self.head is None else "score"

    @property
    def bounds(self) -> tuple[float, float] | None:
        """`(lowest, highest)` value of the output: infinite if unbounded, None if not known."""
        if self.head is None:
            return self.distance_bounds()
        return (0.0, 1.0) if isinstance(self.head, LogisticHead) else None

    def distance_bounds(self) -> tuple[float, float]:
        """Bounds on unit-norm embeddings if the encoder normalises or norms do not matter, else on all embeddings."""
        if self.distance.scale_free or ends_in_unit_norm(self.encoder):
            return self.distance.bounds
        return (0.0 if self.distance.bounds[0] == 0.0 else -float("inf"), float("inf"))

    def build(self, input_shape: Shapes) -> None:
        shapes = map_shapes(tuple, input_shape)
        check_towers(shapes)
        first, *others = map_shapes(lambda shape: shape[1:], shapes)
        if any(other != first for other in others):
            raise ValueError(f"`inputs` of SiameseWrapper must have the same shape, batch aside; got {shapes}")
        embedding_shape = embedding_shape_of(self.encoder, shapes[0])
        self.distance_layer.build([embedding_shape] * len(shapes))
        if self.head is not None and not self.head.built:
            self.head.build((None, self.distance_layer.columns(len(shapes))))
        self._tower_shapes = shapes
        self.built = True

    def call(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> Tensor:
        check_towers(inputs)
        embeddings = self.embed(inputs, training, mask)
        loss = self.cutting_loss() if STEPPING.get() is self else None
        return self.compare(*embeddings) if loss is None else self.compare_cut(loss, embeddings)

    def embed(self, inputs: Tensor, training: bool | None = None, mask: Tensor = None) -> list[Tensor]:
        """Embeddings of the two or three `inputs`: a list of tensors `(batch, dim)`."""
        check_rows(inputs)
        if not self.joint:
            masks = [None] * len(inputs) if mask is None else mask
            return [self.encode(one, training, one_mask) for one, one_mask in zip(inputs, masks, strict=True)]
        stacked = tree.map_structure(lambda *towers: ops.concatenate(towers, axis=0), *inputs)
        stacked_mask = None if mask is None else tree.map_structure(stacked_or_none, *mask)
        return ops.split(self.encode(stacked, training, stacked_mask), len(inputs), axis=0)

    def encode(self, inputs: Tensor, training: bool | None, mask: Tensor) -> Tensor:
        return encoded(self.encoder, inputs, training, mask)

    def compare(self, *embeddings: Tensor) -> Tensor:
        """The model's output from embeddings: `(batch, 1)` of two, `(batch, 2 or 3)` of three, each `(batch, dim)`."""
        distances = self.distance_layer(list(embeddings))
        return distances if self.head is None else self.head(distances)

    def cutting_loss(self) -> keras.losses.Loss | None:
        """The loss, if it is a `MatryoshkaLoss`, which also needs the outputs for cut embeddings; else None."""
        return next((loss for loss in tree.flatten(self.loss) if getattr(loss, "cuts_outputs", False)), None)

    def compare_cut(self, loss: keras.losses.Loss, embeddings: list[Tensor]) -> Tensor:
        """The outputs for whole embeddings and for those cut to each of the loss's dims, from the most to the fewest.

        Returns:
            A tensor `(batch, 1 + len(dims), columns)`, of which the first row of each sample is the model's output.
        """
        dim = embeddings[0].shape[1]
        if max(loss.dims) > dim:
            name = self.encoder.name
            raise ValueError(f"`dims` must be at most {dim}, the size of the embeddings of {name!r}; got {loss.dims}")
        if min(loss.dims) < dim and isinstance(self.distance, keras.layers.Layer):
            why = f"has weights for all {dim} dimensions, so that it cannot compare fewer"
            raise ValueError(f"`distance` {self.distance!r} {why}. Use one without weights, such as 'cosine'")
        if min(loss.dims) < dim and loss.normalize and self.head is None:
            loss.check_output(self.output_kind, self.distance.bounds)
        outputs = [self.compare(*embeddings)]
        for d in sorted(loss.dims, reverse=True):
            cut = [loss.cut(at_least_float32(one), d) for one in embeddings]
            outputs.append(outputs[0] if d == dim else self.compare(*cut))
        return ops.stack(outputs, axis=1)

    def train_step(self, *args: Any, **kwargs: Any) -> Any:
        with step_of(self):
            return super().train_step(*args, **kwargs)

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        with step_of(self):
            return super().test_step(*args, **kwargs)

    def compute_loss(
        self,
        x: Tensor = None,
        y: Tensor = None,
        y_pred: Tensor = None,
        sample_weight: Tensor = None,
        training: bool = True,
    ) -> Tensor:
        """As `keras.Model.compute_loss`.

        If a `MatryoshkaLoss` is given outputs `(batch, columns)` alone, as by a training step of your own, the inputs
        `x` are embedded again to compare cut embeddings; without `x`, these count as if they gave the same outputs.
        """
        loss = self.cutting_loss()
        if loss is not None:
            if len(y_pred.shape) == 2 and x is None:
                y_pred = ops.stack([y_pred] * (1 + len(loss.dims)), axis=1)
            elif len(y_pred.shape) == 2:
                y_pred = self.compare_cut(loss, self.embed(x, training))
            y_pred = y_pred[:, 1:]
        return super().compute_loss(x, y, y_pred, sample_weight, training=training)

    def compute_metrics(self, x: Tensor, y: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> dict[str, Any]:
        if self.cutting_loss() is not None and len(y_pred.shape) == 3:
            y_pred = y_pred[:, 0]
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def compute_mask(self, inputs: Tensor, mask: Tensor = None) -> None:
        # A mask over the encoder's time steps must not reach the loss, whose rows are pairs.
        return None

    def compute_output_shape(self, input_shape: Shapes) -> Shape:
        return (tree.flatten(input_shape[0])[0], self.distance_layer.columns(len(input_shape)))

    def fit(self, *args: Any, **kwargs: Any) -> keras.callbacks.History:
        """Train like `keras.Model.fit`, after a check that the loss can work on this model's output.

        A `BackupAndRestore` needs a model that is built, which TensorFlow would do only in the first step. So the model
        is built from the shapes of the data before a backup is restored. The shapes of a generator are known only when
        it is read: call the model on a batch before.

        If the data has `set_epoch` (as the sequences in `keras_siamese.data`), it is called with each epoch's number.
        While `fit` runs, callbacks find the training data in `model.training_data`.
        """
        refuse_workers("`fit`", self)
        for loss in tree.flatten(self.loss):
            if hasattr(loss, "check_output"):
                loss.check_output(self.output_kind, self.bounds)
        call = inspect.signature(super().fit).bind(*args, **kwargs)
        check_model_input("x", call.arguments.get("x"))
        check_model_input("validation_data", call.arguments.get("validation_data"))
        data, callbacks = call.arguments.get("x"), call.arguments.get("callbacks")
        first = []
        if not self.built and backs_up(callbacks):
            first.append(keras.callbacks.LambdaCallback(on_train_begin=lambda logs: build_for(self, data)))
        if hasattr(data, "set_epoch"):
            first.append(keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: data.set_epoch(epoch)))
        if first:
            call.arguments["callbacks"] = with_first(first, callbacks)
        self.training_data = data
        try:
            return super().fit(*call.args, **call.kwargs)
        finally:
            self.training_data = None
            if isinstance(callbacks, keras.callbacks.CallbackList):
                for callback in first:
                    callbacks.callbacks.remove(callback)

    def evaluate(self, x: Data = None, *args: Any, **kwargs: Any) -> Any:
        """Evaluate like `keras.Model.evaluate`, `x` the inputs `(left, right)`, each `(n, …)`, or a sequence."""
        refuse_workers("`evaluate`", self)
        check_model_input("x", x)
        return super().evaluate(x, *args, **kwargs)

    def predict(self, x: Data, *args: Any, **kwargs: Any) -> np.ndarray:
        """Predict like `keras.Model.predict`, `x` the inputs `(left, right)`, each `(n, …)`, or a sequence."""
        check_model_input("x", x)
        return super().predict(x, *args, **kwargs)

    def get_config(self) -> dict[str, Any]:
        parts = {"encoder": self.encoder, "distance": self.distance, "head": self.head}
        parts = {name: keras.saving.serialize_keras_object(part) for name, part in parts.items()}
        return {**super().get_config(), **parts, "joint": self.joint, "swap": self.swap}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        config = dict(config)
        for name in ("encoder", "distance", "head"):
            if isinstance(config[name], dict):
                config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)

    def get_build_config(self) -> dict[str, Any] | None:
        return {"towers": map_shapes(list, self._tower_shapes)} if self.built else None

    def build_from_config(self, config: dict[str, Any]) -> None:
        if config:
            self.build(config["towers"])


@contextlib.contextmanager
def step_of(model: keras.Model) -> Iterator[None]:
    """Within the block, the `model` takes a step of `fit` or `evaluate`."""
    token = STEPPING.set(model)
    try:
        yield
    finally:
        STEPPING.reset(token)


def listed(callbacks):
    """The callbacks, which may have any form that `fit` accepts, as a list."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks.callbacks
    return [item for item in tree.flatten(callbacks) if item is not None]


def backs_up(callbacks):
    """Whether a `BackupAndRestore`, such as `AtomicBackup`, is among the callbacks."""
    return any(isinstance(item, keras.callbacks.BackupAndRestore) for item in listed(callbacks))


def with_first(first, callbacks):
    """Put the list `first` before the other callbacks, which may have any form that `fit` accepts."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks[:0] = first
        return callbacks
    return [*first, *listed(callbacks)]


def build_for(model, data):
    """Build a `model` for `data` as `fit` takes them, if it is not built and if their shapes are known."""
    if model.built:
        return
    if hasattr(data, "element_spec"):  # of tf.data
        data = data.element_spec[0] if isinstance(data.element_spec, tuple) else data.element_spec
    elif isinstance(data, keras.utils.PyDataset):
        data = data[0][0]
    leaves = tree.flatten(data) if isinstance(data, (tuple, list)) else [data]
    shapes = [getattr(leaf, "shape", None) for leaf in leaves]
    if not any(shape is None or getattr(shape, "rank", 0) is None for shape in shapes):  # TensorFlow's may have no rank
        model.build(tree.map_structure(lambda leaf: (None, *tuple(leaf.shape)[1:]), data))


def encoded(encoder, inputs, training, mask):
    """What `encoder`, a model or layer, returns; its call may have no `training` and no `mask`."""
    takes_mask = "mask" in inspect.signature(encoder.call).parameters
    has_mask = mask is not None and any(leaf is not None for leaf in tree.flatten(mask))
    # Keras removes `training` where the call does not take it, but tells it to the layers within.
    return encoder(inputs, training=training, **({"mask": mask} if takes_mask and has_mask else {}))


def seen_through(layer):
    """The `layer`, or the one that it says it is the `same_as`: which returns the same values from the same inputs."""
    while hasattr(layer, "same_as"):
        layer = layer.same_as
    return layer


def ends_in_unit_norm(encoder):
    """Whether the last layer of a Sequential or functional `encoder` is `UnitNormalization` over its last axis."""
    encoder = seen_through(encoder)
    if isinstance(encoder, keras.layers.UnitNormalization):
        return encoder.axis in (-1, (-1,), [-1], 1)
    if isinstance(encoder, keras.Sequential):
        return bool(encoder.layers) and ends_in_unit_norm(encoder.layers[-1])
    if isinstance(encoder, keras.Model) and getattr(encoder, "outputs", None):
        return ends_in_unit_norm(encoder.outputs[0]._keras_history.operation)
    return False


def stacked_or_none(*masks):
    """Concatenate the towers' masks of one input. A tower without a mask is unmasked; without any mask, return None."""
    known = next((mask for mask in masks if mask is not None), None)
    return None if known is None else ops.concatenate([ops.ones_like(known) if m is None else m for m in masks], axis=0)


def is_shape(value):
    return isinstance(value, (tuple, list)) and all(size is None or isinstance(size, int) for size in value)


def map_shapes(function, nested):
    """Apply `function` to each shape in nested lists and dicts. In a saved file, shapes are lists instead of tuples."""
    if is_shape(nested):
        return function(nested)
    if isinstance(nested, dict):
        return {key: map_shapes(function, value) for key, value in nested.items()}
    return [map_shapes(function, value) for value in nested]


def check_towers(inputs):
    """Refuse all but two or three inputs (or two or three shapes)."""
    several = isinstance(inputs, (tuple, list)) and not is_shape(inputs)
    if not several or len(inputs) not in (2, 3):
        one = f"array of shape {tuple(inputs)}" if isinstance(inputs, (tuple, list)) else type(inputs).__name__
        what = f"{len(inputs)} inputs" if several else f"one {one}"
        takes = "SiameseWrapper takes a tuple (left, right) or (anchor, positive, negative)"
        raise ValueError(f"{takes}; got {what}. To embed single inputs, call its `.encoder`.")


def check_rows(inputs):
    """Refuse inputs with different numbers of rows, because the joint run could not be split again."""
    leaves = [tree.flatten(tower)[0] for tower in inputs]
    missing = [type(leaf).__name__ for leaf in leaves if not hasattr(leaf, "shape")]
    if missing:
        raise TypeError(f"`inputs` of SiameseWrapper must be arrays or tensors; got a {missing[0]}")
    rows = [leaf.shape[0] for leaf in leaves]
    if len({count for count in rows if isinstance(count, int)}) > 1:
        raise ValueError(f"`inputs` of SiameseWrapper must have equally many rows; got {rows}")


def embedding_shape_of(encoder, tower_shape):
    """The encoder's output shape `(batch, dim)` for any batch. The encoder is built if it is not built yet."""
    try:
        inputs = map_shapes(lambda shape: keras.KerasTensor((None, *shape[1:])), tower_shape)
        output = encoder.compute_output_spec(inputs) if encoder.built else encoder(inputs)
        if isinstance(output, list) and len(output) == 1:  # a functional encoder loaded by Keras 3.4
            output = output[0]
        shape = tuple(output.shape)
    except Exception as error:
        what = f"an output shape (batch, dim) that Keras can compute for inputs of shape {tower_shape}"
        found = f"{encoder.name!r} raised {type(error).__name__}: {error}"
        raise ValueError(f"`encoder` must have {what}; {found}") from error
    if len(shape) != 2 or shape[1] is None:
        wanted = "embeddings of shape (batch, dim) with a known dim"
        found = f"{encoder.name!r} returns {shape} for inputs of shape {tower_shape}"
        raise ValueError(f"`encoder` must return {wanted}; {found}. End it with a Flatten, pooling or Dense layer.")
    return shape
