"""What a siamese model is made of: `dissect`.

Contract: all modules that measure a model ask an `Anatomy`. It embeds items and compares embeddings exactly as the
model does, so a score is the model's own output. Imports the other modules of this room, `layers`, `distances` and
`data`.

    anatomy = dissect(model, sample=[left, right])
    print(anatomy)
    output = anatomy.compare(*anatomy.embed([left, right]))       # (n, 1), what model.predict([left, right]) gives
"""

from __future__ import annotations

import html
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops, tree

from keras_siamese._files import reason_of
from keras_siamese._types import DistanceLike, Samples, Tensor
from keras_siamese.attach.comparator import Examined, columns_weighted, is_distance_alone, own_distance
from keras_siamese.attach.encoder import holds_encoder, is_encoder, without_classifier
from keras_siamese.attach.graph import is_functional, shows_parts, understood
from keras_siamese.attach.orient import are_pairs
from keras_siamese.attach.towers import joined, towers_of
from keras_siamese.layers import DistanceLayer, SiameseWrapper
from keras_siamese.layers.siamese import seen_through

logger = logging.getLogger(__name__)


class Anatomy:
    """A siamese model, understood. Made by `dissect`.

    Attributes:
        model: the user's model.
        encoder: the model from items to their embeddings `(n, dim)`; None if the user gives the score.
        other: the encoder of the right side, if it has weights of its own; else None.
        has_embeddings: whether the encoder does anything. A model that joins its inputs at once has no embeddings; its
            "encoder" returns the samples themselves. With a score of the user's own there are none either.
        distance: the `Distance` between embeddings, or None for a comparator of the user's own.
        head: the layer with weights from the distance to the output, if this is all that follows the distance.
        scale_free: whether the comparison looks only at the directions of embeddings.
        bounds: `(lowest, highest)` value of the output, or None if not known.
        output_kind: "distance" if the output falls with similarity, "score" if it grows.
        wrapper: a `SiameseWrapper` of the same parts, or None if the comparator is none of this package's distances.
        compares_by_wrapper: whether `compare` is the wrapper's distance and head, and nothing of a subclass's own.
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

    def __init__(
        self,
        model: keras.Model,
        notes: Iterable[str],
        *,
        wrapper: keras.Model | None = None,
        towers: Any = None,
        compare: Callable[[Any, Any], Any] | None = None,
        place: int = 0,
        column: int = 0,
    ) -> None:
        self.model, self.notes = model, tuple(notes)
        self.wrapper, self.parts, self.direction, self.sample = wrapper, towers, None, None
        self.comparator = None if towers is None else towers.comparator
        self.place, self.column = place, column  # of the output that compares
        self.compares_itself = compare is not None or wrapper is model
        self.pair_loss = self.labels = None
        self.has_embeddings = towers is None or towers.embeds
        self.encoder = seen_through(getattr(wrapper, "encoder", None))
        if self.encoder is None and towers is not None:
            self.encoder = seen_through(towers.models[0])
        self.other = None if towers is None or towers.is_shared else seen_through(towers.models[1])
        self.distance, self.head, self.bounds = (
            getattr(wrapper, name, None) for name in ("distance", "head", "bounds")
        )
        self.scale_free = wrapper is not None and wrapper.distance.scale_free
        self.output_kind = getattr(wrapper, "output_kind", "score")
        self.compares_by_wrapper = compare is None and compares_as_built(wrapper)
        self._compare = compare or getattr(wrapper, "compare", None)

    @property
    def name(self) -> str:
        return self.model.name

    def embed(self, items: Sequence[Any], training: bool = False) -> list[Tensor]:
        """Embeddings of the items of two sides, a list of two tensors `(n, dim)`."""
        if self.wrapper is not None and self.other is None:
            return self.wrapper.embed(tuple(items), training=training)
        left, right = items
        return [self.encoder(left, training=training), (self.other or self.encoder)(right, training=training)]

    def encode(self, items: Samples, training: bool = False, mask: Tensor = None) -> Tensor:
        """Embeddings `(n, dim)` of items of the left side."""
        if self.wrapper is not None:
            return self.wrapper.encode(items, training, mask)
        return self.encoder(items, training=training)

    def compare(self, left: Tensor, right: Tensor) -> Tensor:
        """The model's output for pairs of embeddings `(n, dim)`: `(n, 1)`."""
        return self._compare(left, right)

    def are_pairs(self, x: Any) -> bool:
        """Whether `x` has both sides of what is compared; otherwise `x` are items."""
        return are_pairs(self.model, x)

    @property
    def towers(self) -> tuple[keras.layers.Layer, ...]:
        return tuple(one for one in (self.encoder, self.other) if one is not None)

    @property
    def learned(self) -> list[keras.Variable]:
        """The trainable weights that follow the comparison: with them training can turn its direction."""
        if self.parts is None:
            return list(getattr(self.head, "trainable_weights", []))
        return list((self.parts.comparator or self.model).trainable_weights)

    @property
    def has_scalar_head(self) -> bool:
        """Whether weights follow a comparison of one number: they can turn its direction, and nothing else."""
        if self.wrapper is not None and self.parts is None:
            return self.head is not None
        return self.comparator is not None and 0 < columns_weighted(self.comparator) <= 1

    def __str__(self) -> str:
        return "\n  ".join(self._lines())

    def _repr_html_(self):
        name, *lines = map(html.escape, self._lines())
        return f"<b>{name}</b><ul>{''.join(f'<li>{line}</li>' for line in lines)}</ul>"

    def _lines(self):
        """The model's name, and what was found, line by line."""
        lines = [f"{self.name} ({type(self.model).__name__})", *self.notes]
        if self.direction is not None:  # it says more than what was found from the comparator alone
            score = "the output" if self.output_kind == "score" else "minus the output"
            lines = [line for line in lines if not line.startswith("score: ")]
            lines += [f"score: {score}", str(self.direction)]
        return lines


class GivenScore(Anatomy):
    """What stands for the anatomy of a model if the user gives the score: it compares items, and has no parts."""

    def __init__(self, model, score):
        super().__init__(model, ["not examined: the output is what the function that was given returns"])
        self.has_embeddings, self.score = False, score

    def embed(self, items, training=False):
        """The items themselves."""
        return list(items)

    def compare(self, left, right):
        """What the score gives for the items of n pairs: `(n, 1)`."""
        values, count = ops.convert_to_numpy(self.score(left, right)), len(tree.flatten(left)[0])
        if values.shape not in ((count,), (count, 1)):
            found = f"got shape {values.shape}"
            raise ValueError(f"`score` must return {count} numbers for {count} pairs, one each; {found}")
        return values.reshape(count, 1).astype("float32")

    def are_pairs(self, x):
        return is_pair(x)


def is_pair(x):
    return isinstance(x, (tuple, list)) and len(x) == 2


def check_score(score):
    """Return `score`, a function or None."""
    if score is not None and not callable(score):
        raise TypeError(f"`score` must be a function (left, right) → (n,); got {score!r}")
    return score


def check_model(name, model):
    """Return `model` if it is a Keras model or layer."""
    if not isinstance(model, keras.layers.Layer):
        raise TypeError(f"`{name}` must be a Keras model or layer; got {model!r} of type {type(model).__name__}")
    return model


def check_encoder(encoder):
    return None if encoder is None else check_model("encoder", encoder)


def dissect(
    model: keras.layers.Layer,
    sample: Any = None,
    *,
    encoder: keras.layers.Layer | None = None,
    distance: DistanceLike | None = None,
    score: Callable[[Any, Any], Any] | None = None,
) -> Anatomy:
    """Find the towers, the comparator and the output of a siamese model.

    Args:
        model: any Keras model that compares two or three items, or an encoder.
        sample: some rows of what `model` takes, a nested structure of arrays. Needed for a subclassed model, whose
            graph is traced with it.
        encoder: the model from one item to its embedding, if it cannot be found; the towers of a traced model are kept.
        distance: how to compare embeddings, "cosine" by default, if the model has no comparator.
        score: a function `(left, right) → (n,)` of the items of n pairs, larger for more similar pairs, for a model
            that cannot be understood, or that is used in another way than it is trained. The model is not examined.

    Returns:
        An `Anatomy`.

    Raises:
        TypeError: if `model` is no Keras model or layer, or `score` no function.
        ValueError: if neither towers nor an encoder are found, or if `encoder` or `distance` contradicts the model.
    """
    check_model("model", model)
    check_encoder(encoder)
    if check_score(score) is not None:
        return GivenScore(model, score)
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
        encoder = next((one for one in (model, *inner) if holds_encoder(one, sample if one is model else None)), None)
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
            "two or three inputs, and its output is not the embedding (batch, dim) of one input. What was understood: "
            f"{understood(model, sample)}. Pass `encoder=`, the model from one input to its embedding; or `score=`, a "
            "function (left, right) → (n,) of items, larger for more similar pairs"
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
    except Exception as error:  # what a user's call raises is not known
        logger.debug("%r does not compare its inputs: its call raised %s", model.name, reason_of(error))
        return False
    return all(1 <= int(np.prod(one.shape, dtype=int)) / 2 <= 2 for one in tree.flatten(outputs))


def compares(model, sample=None):
    """Whether `model` compares inputs: its graph has towers, or it joins inputs to something that is no embedding."""
    towers = towers_of(model, sample)
    return towers is not None and (towers.embeds or not is_encoder(model, tree.flatten(sample or model.inputs)))


def compares_as_built(wrapper):
    """Whether the `wrapper` has the `compare` of `SiameseWrapper`, and not that of a subclass or one set by hand."""
    own = getattr(getattr(wrapper, "compare", None), "__func__", None)
    return own is SiameseWrapper.compare and type(wrapper.distance_layer) is DistanceLayer


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
    anatomy.compares_by_wrapper = compares_as_built(wrapper) and is_distance_alone(comparator)
    if wrapper is None:
        anatomy.distance, anatomy.scale_free = own_distance(comparator), examined.scale_free
        anatomy.output_kind = "distance" if examined.end < 0 else "score"
    return anatomy


def layers_of(model):
    """The layers of a part of a model, by name; of a long part only its own name."""
    names = [one.name for one in getattr(model, "operations", [model]) if not isinstance(one, keras.layers.InputLayer)]
    return model.name if len(names) > 6 else " → ".join(names)
