"""`SiameseWrapper`: one encoder, two or three inputs, a distance or a probability out.

Contract: a tuple of two inputs `(left, right)` gives `(batch, 1)`, of three `(anchor, positive, negative)` gives
`(batch, 2)`, or `(batch, 3)` with `swap=True`; each input is whatever the encoder takes (an array of any rank, a dict
or a list of arrays, a masked sequence). Imports `_export`, `distances` and the layers beside it.

    siamese = SiameseWrapper(encoder, distance="euclidean")
    siamese.compile("adam", loss=keras_siamese.losses.ContrastiveLoss())
    siamese.fit(keras_siamese.data.PairSequence(x, labels))
    siamese.encoder.predict(x)                                  # embeddings (n, dim)
"""

import inspect

import keras
from keras import ops, tree

from keras_siamese._checks import check_choice
from keras_siamese._export import export
from keras_siamese.layers.distance import DistanceLayer, LogisticHead


@export
class SiameseWrapper(keras.Model):
    """A siamese network: the encoder embeds every input, the distance compares the embeddings.

    d(a, b) = distance(encoder(a), encoder(b)); with `head`, p(same) = head(d).

    Call it on a tuple or list of two inputs `(left, right)` → `(batch, 1)`, or three `(anchor, positive, negative)` →
    `(batch, 2)`, the distances anchor–positive and anchor–negative. Inputs may be arrays of any rank or, for an
    encoder with several inputs, dicts or lists of arrays; all must have the same shapes.

    Args:
        encoder: a `keras.Model` or layer from one input to an embedding `(batch, dim)`.
        distance: a name from `keras_siamese.distances.names()`, a `Distance`, or a function `(a, b) → (n,)`.
        head: None puts out the distance; "logistic" puts out p(same) = σ(b − a·d) with learned a > 0; a layer is
            called on the distances and taken to put out a score that grows with similarity.
        joint: True (default) runs the encoder once over the concatenated inputs, with one set of BatchNormalization
            statistics; False runs it once for each input.
        swap: whether three inputs also give the distance positive–negative, as a third column: `(batch, 3)`, what
            ``TripletLoss(swap=True)`` works on.

    Attributes:
        output_kind: "distance" (smaller is closer) without a head, "score" (larger is more similar) with one.
        bounds: the range that the output can reach, where it is known.

    Raises:
        ValueError: if the encoder has no output shape `(batch, dim)`, the inputs differ in shape, or (from `fit`) the
            loss cannot work on this output: a margin out of reach, a distance loss on probabilities.

    Example:

    >>> import keras, numpy as np, keras_siamese as ks
    >>> encoder = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), keras.layers.UnitNormalization()])
    >>> siamese = ks.SiameseWrapper(encoder, distance="cosine")
    >>> tuple(siamese((np.ones((5, 4)), np.zeros((5, 4)))).shape)
    (5, 1)
    """

    def __init__(self, encoder, distance="euclidean", head=None, joint=True, swap=False, **kwargs):
        super().__init__(**kwargs)
        if not isinstance(encoder, keras.layers.Layer):
            raise TypeError(
                f"`encoder` must be a Keras model or layer; got {encoder!r} of type {type(encoder).__name__}"
            )
        self.encoder = encoder
        self.distance_layer = DistanceLayer(distance, swap=swap, name="distance")
        if head is None or isinstance(head, keras.layers.Layer):
            self.head = head
        else:
            check_choice("head", head, (None, "logistic"))
            self.head = LogisticHead(*self.distance_bounds(), name="head")
        self.joint = bool(joint)
        self.training_data = None

    @property
    def distance(self):
        """The `Distance` between embeddings."""
        return self.distance_layer.distance

    @property
    def swap(self):
        """Whether three inputs give three distances."""
        return self.distance_layer.swap

    @property
    def output_kind(self):
        """ "distance" or "score": which way the output points."""
        return "distance" if self.head is None else "score"

    @property
    def bounds(self):
        """`(lowest, highest)` value that the output can take; infinite or None where it is not known."""
        if self.head is None:
            return self.distance_bounds()
        return (0.0, 1.0) if isinstance(self.head, LogisticHead) else None

    def distance_bounds(self):
        """The distance's bounds if the encoder ends by normalising or norms do not matter, else its widest range."""
        if self.distance.scale_free or ends_in_unit_norm(self.encoder):
            return self.distance.bounds
        return (0.0 if self.distance.bounds[0] == 0.0 else -float("inf"), float("inf"))

    def build(self, input_shape):
        shapes = as_shapes(input_shape)
        check_tower_shapes(shapes)
        embedding_shape = embedding_shape_of(self.encoder, shapes[0])
        self.distance_layer.build([embedding_shape] * len(shapes))
        if self.head is not None and not self.head.built:
            self.head.build((None, self.distance_layer.columns(len(shapes))))
        self._tower_shapes = shapes
        self.built = True

    def call(self, inputs, training=None, mask=None):
        check_towers(inputs)
        embeddings = self.embed(inputs, training, mask)
        return self.compare(*embeddings)

    def embed(self, inputs, training=None, mask=None):
        """Embeddings of the two or three `inputs`: a list of tensors `(batch, dim)`."""
        check_rows(inputs)
        if not self.joint:
            masks = [None] * len(inputs) if mask is None else mask
            return [self.encode(one, training, one_mask) for one, one_mask in zip(inputs, masks, strict=True)]
        stacked = tree.map_structure(lambda *towers: ops.concatenate(towers, axis=0), *inputs)
        stacked_mask = None if mask is None else tree.map_structure(stacked_or_none, *mask)
        return ops.split(self.encode(stacked, training, stacked_mask), len(inputs), axis=0)

    def encode(self, inputs, training, mask):
        takes = inspect.signature(self.encoder.call).parameters
        options = {}
        if "training" in takes:
            options["training"] = training
        if "mask" in takes and mask is not None and any(leaf is not None for leaf in tree.flatten(mask)):
            options["mask"] = mask
        return self.encoder(inputs, **options)

    def compare(self, *embeddings):
        """The model's output from embeddings: `(batch, 1)` of two, `(batch, 2 or 3)` of three, each `(batch, dim)`."""
        distances = self.distance_layer(list(embeddings))
        return distances if self.head is None else self.head(distances)

    def compute_mask(self, inputs, mask=None):
        # A mask over the encoder's time steps must not reach the loss on (batch, 1).
        return None

    def compute_output_shape(self, input_shape):
        shapes = as_shapes(input_shape)
        return (tree.flatten(shapes[0])[0], self.distance_layer.columns(len(shapes)))

    def fit(self, *args, **kwargs):
        """`keras.Model.fit`, after a check that the loss can work on this model's output.

        A sequence with `set_epoch` (those of `keras_siamese.data`) is told each epoch's number, and callbacks find
        the training data as `model.training_data` while it runs.
        """
        for loss in tree.flatten(self.loss):
            if hasattr(loss, "check_output"):
                loss.check_output(self.output_kind, self.bounds)
        call = inspect.signature(super().fit).bind(*args, **kwargs)
        data, callbacks = call.arguments.get("x"), call.arguments.get("callbacks")
        if hasattr(data, "set_epoch"):
            sync = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: data.set_epoch(epoch))
            call.arguments["callbacks"] = with_first(sync, callbacks)
        self.training_data = data
        try:
            return super().fit(*call.args, **call.kwargs)
        finally:
            self.training_data = None
            if isinstance(callbacks, keras.callbacks.CallbackList) and hasattr(data, "set_epoch"):
                callbacks.callbacks.remove(sync)

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.saving.serialize_keras_object(self.encoder),
            "distance": keras.saving.serialize_keras_object(self.distance),
            "head": None if self.head is None else keras.saving.serialize_keras_object(self.head),
            "joint": self.joint,
            "swap": self.swap,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        for name in ("encoder", "distance", "head"):
            if isinstance(config[name], dict):
                config[name] = keras.saving.deserialize_keras_object(config[name])
        return cls(**config)

    def get_build_config(self):
        return {"towers": as_lists(self._tower_shapes)} if self.built else None

    def build_from_config(self, config):
        if config:
            self.build(config["towers"])


def with_first(callback, callbacks):
    """`callback` before the others, in whichever form `fit` was given them."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.callbacks.insert(0, callback)
        return callbacks
    return [callback, *(item for item in tree.flatten(callbacks) if item is not None)]


def ends_in_unit_norm(encoder):
    """Whether the last layer of a Sequential or functional `encoder` is `UnitNormalization` over its last axis."""
    if isinstance(encoder, keras.layers.UnitNormalization):
        return encoder.axis in (-1, (-1,), [-1], 1)
    if isinstance(encoder, keras.Sequential):
        return bool(encoder.layers) and ends_in_unit_norm(encoder.layers[-1])
    if isinstance(encoder, keras.Model) and getattr(encoder, "outputs", None):
        return ends_in_unit_norm(encoder.outputs[0]._keras_history.operation)
    return False


def stacked_or_none(*masks):
    """The towers' masks of one input, concatenated; a tower without one counts as unmasked, None if none has one."""
    known = [mask for mask in masks if mask is not None]
    if not known:
        return None
    return ops.concatenate([ops.ones_like(known[0]) if mask is None else mask for mask in masks], axis=0)


def is_shape(value):
    return isinstance(value, (tuple, list)) and all(size is None or isinstance(size, int) for size in value)


def as_shapes(nested):
    """Shapes as tuples inside lists and dicts, also from a saved file, where all are lists."""
    if is_shape(nested):
        return tuple(nested)
    if isinstance(nested, dict):
        return {key: as_shapes(value) for key, value in nested.items()}
    return [as_shapes(value) for value in nested]


def as_lists(nested):
    if isinstance(nested, dict):
        return {key: as_lists(value) for key, value in nested.items()}
    return [as_lists(value) for value in nested] if isinstance(nested, (tuple, list)) else nested


def check_towers(inputs):
    """Refuses all but two or three inputs, or all but their shapes."""
    several = isinstance(inputs, (tuple, list)) and not is_shape(inputs)
    if not several or len(inputs) not in (2, 3):
        one = f"array of shape {tuple(inputs)}" if isinstance(inputs, (tuple, list)) else type(inputs).__name__
        what = f"{len(inputs)} inputs" if several else f"one {one}"
        raise ValueError(
            f"SiameseWrapper takes a tuple (left, right) or (anchor, positive, negative); got {what}. "
            "To embed single inputs call its `.encoder`."
        )


def check_rows(inputs):
    """Refuses towers of unlike batch size, which the joint run would cut in the wrong place."""
    rows = [tree.flatten(tower)[0].shape[0] for tower in inputs]
    if len({count for count in rows if isinstance(count, int)}) > 1:
        raise ValueError(f"The inputs of SiameseWrapper must have as many rows; got {rows}")


def check_tower_shapes(shapes):
    check_towers(shapes)
    if any(without_batch(shape) != without_batch(shapes[0]) for shape in shapes[1:]):
        raise ValueError(f"The inputs of SiameseWrapper must have the same shape, batch aside; got {shapes}")


def without_batch(nested):
    if isinstance(nested, tuple):
        return nested[1:]
    if isinstance(nested, dict):
        return {key: without_batch(value) for key, value in nested.items()}
    return [without_batch(value) for value in nested]


def embedding_shape_of(encoder, tower_shape):
    """The encoder's output shape `(batch, dim)`, for any batch; the encoder is built if it is not."""
    try:
        inputs = as_symbols(tower_shape)
        output = encoder.compute_output_spec(inputs) if encoder.built else encoder(inputs)
        if isinstance(output, list) and len(output) == 1:  # Keras 3.4's form of a functional encoder that was loaded
            output = output[0]
        shape = tuple(output.shape)
    except Exception as error:
        raise ValueError(
            f"`encoder` must have an output shape (batch, dim) that Keras can work out for inputs of shape "
            f"{tower_shape}; {encoder.name!r} raised {type(error).__name__}: {error}"
        ) from error
    if len(shape) != 2 or shape[1] is None:
        raise ValueError(
            f"`encoder` must put out embeddings of shape (batch, dim) with a known dim; {encoder.name!r} puts out "
            f"{shape} for inputs of shape {tower_shape}. End it with a Flatten, pooling or Dense layer."
        )
    return shape


def as_symbols(shapes):
    """Symbolic inputs of the nested `shapes`, for a batch of any size."""
    if isinstance(shapes, tuple):
        return keras.KerasTensor((None, *shapes[1:]))
    if isinstance(shapes, dict):
        return {key: as_symbols(shape) for key, shape in shapes.items()}
    return [as_symbols(shape) for shape in shapes]
