"""Search space: the hyperparameters of training a siamese network, for KerasTuner.

Contract: `SearchSpace.declare(hp)` registers the fields on KerasTuner's `HyperParameters` under their names; a field
that only some losses use on the condition that one of these is chosen.

    space = SearchSpace(
        loss=["ContrastiveLoss", "BatchTripletLoss", "NTXentLoss"],
        relative_margin=Range(0.1, 0.7),                  # share of the largest distance; not used by NT-Xent
        learning_rate=Range(1e-4, 1e-2, log=True),
        mining=["none", "hard"],
        encoder={"depth": [2, 3, 4]},                     # a further parameter of `encoder(embedding_dim, depth)`
    )
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any

import keras

from keras_siamese import _checks, distances, losses
from keras_siamese._types import HyperParameters

WHOLE = {"embedding_dim": 1, "batch_size": 1, "classes_per_batch": 2, "samples_per_class": 2}  # and the lowest value
POSITIVE = {"margin", "learning_rate"}
SHARES = {"relative_margin", "positive_fraction"}  # in (0, 1]
NUMBERS = {*WHOLE, *POSITIVE, *SHARES, "augmentation"}
MINING = ("none", "hard", "semi_hard", "easy", "distance_weighted")


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included; only whole numbers if `low`, `high` and `step` are integers.

    Args:
        low, high: numbers, low < high; above 0 with `log`.
        step: the difference of two neighbouring values, or with `log` their ratio; None allows all values.
        log: whether values are drawn uniformly on a logarithmic scale.

    >>> Range(1e-4, 1e-2, log=True)
    Range(low=0.0001, high=0.01, step=None, log=True)
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False

    def __post_init__(self):
        low = _checks.check_number("low", self.low, low=0 if self.log else -float("inf"), open_low=True)
        _checks.check_number("high", self.high, low=low, open_low=True, open_high=True)
        if self.step is not None:
            step = _checks.check_number("step", self.step, low=1 if self.log else 0, open_low=True, open_high=True)
            if step > (self.high / self.low if self.log else self.high - self.low):
                what = "ratio" if self.log else "difference"
                found = f"got {self.step!r} with {self.low!r} and {self.high!r}"
                raise ValueError(f"`step` must be at most the {what} of `high` and `low`; {found}")

    @property
    def is_whole(self) -> bool:
        """Whether the range has only whole numbers."""
        return all(isinstance(one, int) for one in (self.low, self.high, 1 if self.step is None else self.step))

    def register(self, hp: HyperParameters, name: str) -> Any:
        """Registers the range on KerasTuner's `hp`; returns the active value."""
        kind = hp.Int if self.is_whole else hp.Float
        return kind(name, self.low, self.high, step=self.step, sampling="log" if self.log else "linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """Search space of a siamese network: each field is one value, a list of distinct values, a `Range`, or None.

    Args:
        loss: name of a class in `keras_siamese.losses`, or an instance, whose other options are kept. It must be a loss
            on pairs, triplets or whole batches. (Proxy losses need the number of classes, which differs between folds.)
        margin: margin of the losses that have one, in their own units; by default each loss keeps its own.
        relative_margin: the margin as a share, in (0, 1], of the largest distance between unit vectors: 0.5 means 1.0
            for "cosine" and 0.5 for "angular". For losses on a distance; use it instead of `margin`.
        distance: name from `keras_siamese.distances.names()`; not used by losses with a similarity of their own.
        head: for losses on probabilities: "logistic" (default), or a function that returns a layer.
        embedding_dim: for an `encoder` with a parameter of this name; ≥ 1.
        learning_rate, optimizer: above 0; name that `keras.optimizers.get` knows.
        batch_size: pairs or triplets in a batch, ≥ 1.
        classes_per_batch, samples_per_class: composition of the batches of batch losses, each ≥ 2.
        mining: "none" or "hard". For pairs and triplets "hard" adds `HardPairRefresh`; batch losses with the option
            `negatives` get "all" or "hard" for it. If all losses of the space have `negatives`, "semi_hard", "easy" and
            "distance_weighted" are possible too.
        positive_fraction: share of genuine pairs, in (0, 1], for losses on pairs.
        augmentation: strength ≥ 0 of the augmentation of `SiameseHyperModel(augment=…)`; 0 means none.
        encoder: dict of further fields, for other parameters of the encoder, by name.

    Raises:
        ValueError, TypeError: for an unknown name, an empty list, a value out of range, or a field that no loss of the
            space uses; the error names the field.

    >>> SearchSpace(loss="NTXentLoss", margin=1.0)
    Traceback (most recent call last):
        ...
    ValueError: `margin` is used by no `loss` of the space; got 1.0 with NTXentLoss
    """

    loss: object = "ContrastiveLoss"
    margin: object = None
    relative_margin: object = None
    distance: object = "euclidean"
    head: object = "logistic"
    embedding_dim: object = None
    learning_rate: object = 1e-3
    optimizer: object = "adam"
    batch_size: object = 32
    classes_per_batch: object = 8
    samples_per_class: object = 4
    mining: object = "none"
    positive_fraction: object = 0.5
    augmentation: object = None
    encoder: dict = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        vars(self).update(losses=check_losses(self.loss), heads=check_heads(self.head))  # the dataclass is frozen
        if not isinstance(self.encoder, dict):
            raise TypeError(f"`encoder` must be a dict of fields; got {self.encoder!r}")
        vars(self).update(fields=self._checked_fields())
        if self.margin is not None and self.relative_margin is not None:
            raise ValueError("`relative_margin` must be None if `margin` is given; got both")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in self.fields and value != field.default and not self.users(field.name):
                names = ", ".join(self.losses)
                raise ValueError(f"`{field.name}` is used by no `loss` of the space; got {value!r} with {names}")

    def _checked_fields(self):
        """By name of the hyperparameter, a `Range` or a list of values."""
        fields = {"loss": list(self.losses)}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("loss", "head", "encoder") and value is not None:
                fields[field.name] = check_field(field.name, value)
        fields["head"] = list(self.heads)
        for name in fields["distance"]:
            distances.get(name)
        for name in fields["optimizer"]:
            try:
                keras.optimizers.get(name)
            except ValueError as error:
                raise ValueError(f"`optimizer` must be a name that keras.optimizers.get knows; got {name!r}") from error
        having = [name for name in self.losses if uses(self.losses[name], "mining")]
        mined = all("negatives" in self.losses[name].get_config() for name in having)
        for name in fields["mining"]:
            _checks.check_choice("mining", name, MINING if mined else MINING[:2])
        for name, value in self.encoder.items():
            if name in {field.name for field in dataclasses.fields(self)}:
                raise ValueError(f"`encoder` must hold no field that the space has itself; got {name!r}")
            fields[name] = check_field(f"encoder[{name!r}]", value)
        return fields

    def users(self, name: str) -> list[str]:
        """The names of the losses that use the field `name`."""
        return [loss for loss, instance in self.losses.items() if uses(instance, name)]

    def declare(self, hp: HyperParameters) -> dict[str, Any]:
        """Registers the space on KerasTuner's `HyperParameters`; returns the active values by name."""
        values = {}
        for name, choices in self.fields.items():
            users = self.users(name)
            if not users:
                continue
            always = len(users) == len(self.losses)
            with contextlib.nullcontext() if always else hp.conditional_scope("loss", users):
                value = register(hp, name, choices)
            if always or values["loss"] in users:
                values[name] = value
        return values


def register(hp, name, choices):
    """Registers a `Range` or a list of values; returns the active value, or None if its condition is not met."""
    if isinstance(choices, Range):
        return choices.register(hp, name)
    return hp.Fixed(name, choices[0]) if len(choices) == 1 else hp.Choice(name, choices)


def uses(loss, name):
    """Whether a loss uses the field `name`; fields that are not listed here are used with all losses."""
    kind, options = loss.kind, loss.get_config()
    compares = kind != "batch" or "distance" in options
    special = {
        "margin": "margin" in options,
        "relative_margin": "margin" in options and compares and loss.expects != "score",
        "distance": compares,
        "head": loss.expects == "score",
        "mining": kind != "batch" or "negatives" in options,
        "positive_fraction": kind == "pair",
        "batch_size": kind != "batch",
        "classes_per_batch": kind == "batch",
        "samples_per_class": kind == "batch",
    }
    return special.get(name, True)


def check_losses(loss):
    """Returns the losses by class name, from a name, an instance or a list of these."""
    found = {}
    for one in loss if isinstance(loss, (list, tuple)) else [loss]:
        instance = one
        if isinstance(one, str):
            kinds = [name for name in losses.__all__ if is_of_use(getattr(losses, name))]
            instance = with_defaults(getattr(losses, _checks.check_choice("loss", one, kinds)))
        if not isinstance(instance, losses.SiameseLoss) or not is_of_use(type(instance)):
            raise TypeError(f"`loss` must be a loss of keras_siamese.losses on pairs, triplets or batches; got {one!r}")
        name = type(instance).__name__
        if name in found:
            raise ValueError(f"`loss` must hold each class once; got {name} twice")
        found[name] = instance
    if not found:
        raise ValueError("`loss` must hold at least one loss; got an empty list")
    return found


def with_defaults(cls):
    """A loss with its default options; raises if an option has no default."""
    try:
        return cls()
    except TypeError as error:
        must = f"`loss` must be an instance, because {cls.__name__} cannot be made without options"
        raise ValueError(f"{must}: {error}") from error


def is_of_use(cls):
    """Whether a class is a loss on pairs, triplets or batches, and no base class."""
    bases = (losses.SiameseLoss, losses.PairLoss, losses.BatchLoss, losses.ProxyLoss)
    is_loss = issubclass(cls, losses.SiameseLoss) and cls not in bases
    return is_loss and cls.expects in ("distance", "score", "embedding")


def check_heads(head):
    """Returns the heads by name: "logistic", or the name of a function that returns a layer."""
    found = {}
    for one in head if isinstance(head, (list, tuple)) else [head]:
        if not callable(one):
            _checks.check_choice("head", one, ("logistic",))
        name = getattr(one, "__name__", type(one).__name__) if callable(one) else one
        if name in found or isinstance(one, keras.layers.Layer):
            raise ValueError(f"`head` must hold distinct functions, each of which returns a layer; got {one!r}")
        found[name] = one
    if not found:
        raise ValueError("`head` must hold at least one head; got an empty list")
    return found


def check_field(name, value):
    """Returns a `Range` unchanged, anything else as a list of distinct values of one type."""
    if isinstance(value, tuple):
        raise TypeError(f"`{name}` must be a value, a list, or Range(low, high); got the tuple {value!r}")
    if isinstance(value, Range):
        if name not in NUMBERS and not name.startswith("encoder["):
            raise TypeError(f"`{name}` must be a name or a list of names; got {value!r}")
        if name in WHOLE and not value.is_whole:
            raise TypeError(f"`{name}` must be a range of whole numbers; got {value!r}")
        for end in (value.low, value.high):
            check_value(name, end)
        return value
    values = [check_value(name, one) for one in (value if isinstance(value, list) else [value])]
    if len({type(one) for one in values}) > 1 and not any(isinstance(one, (str, bool)) for one in values):
        values = [float(one) for one in values]
    if not values or len(set(values)) < len(values) or len({type(one) for one in values}) > 1:
        raise ValueError(f"`{name}` must hold one value or several distinct ones of one type; got {value!r}")
    return values


def check_value(name, value):
    """Returns a value of the field `name` as Python's str, bool, int or float; raises if it is out of range."""
    value = value.item() if hasattr(value, "item") else value
    if name in WHOLE:
        return _checks.check_integer(name, value, low=WHOLE[name])
    if name in SHARES:
        return _checks.check_number(name, value, low=0, open_low=True, high=1)
    if name in NUMBERS:
        return _checks.check_number(name, value, low=0, open_low=name in POSITIVE, open_high=True)
    if not isinstance(value, (str, bool, int, float)):
        raise TypeError(f"`{name}` must be strings, booleans or numbers; got {value!r} of type {type(value).__name__}")
    return value
