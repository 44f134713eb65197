"""The search space: what may vary in training a siamese network, as hyperparameters of KerasTuner.

Contract: every field is one value, a list of values, or a `Range`. `SearchSpace.declare(hp)` registers them on
KerasTuner's `HyperParameters` under the fields' names, those that only some losses use on the condition of these, and
returns the values that hold, by name. Imports `_checks`, `distances` and `losses`; KerasTuner is the caller's.

    space = SearchSpace(
        loss=["ContrastiveLoss", "BatchTripletLoss", "NTXentLoss"],
        relative_margin=Range(0.1, 0.7),                  # of the distance's reach; none for NT-Xent
        learning_rate=Range(1e-4, 1e-2, log=True),
        mining=["none", "hard"],
        encoder={"depth": [2, 3, 4]},                     # what `encoder(embedding_dim, depth)` takes besides
    )
"""

import contextlib
import dataclasses

import keras

from keras_siamese import _checks, distances, losses

KINDS = {"distance": "pairs", "score": "pairs", "embedding": "batch"}  # what a loss expects: how it is fed
LOW = {  # fields that are numbers: the least value, and whether it is itself out of range
    "margin": (0, True),
    "relative_margin": (0, True),
    "embedding_dim": (1, False),
    "learning_rate": (0, True),
    "batch_size": (1, False),
    "classes_per_batch": (2, False),
    "samples_per_class": (2, False),
    "positive_fraction": (0, True),
    "augmentation": (0, False),
}
WHOLE = {"embedding_dim", "batch_size", "classes_per_batch", "samples_per_class"}
HIGH = {"relative_margin": 1, "positive_fraction": 1}
MINING = ("none", "hard", "semi_hard", "easy", "distance_weighted")


@dataclasses.dataclass(frozen=True)
class Range:
    """All numbers from `low` to `high`, both included: whole ones if both are.

    Args:
        low, high: numbers, low < high; above 0 with `log`.
        step: the distance between two values, or with `log` their quotient; None: any value, of whole numbers each.
        log: whether values are drawn evenly over their logarithm.

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
            _checks.check_number("step", self.step, low=1 if self.log else 0, open_low=True, open_high=True)

    @property
    def is_whole(self):
        """Whether the range holds whole numbers only."""
        return all(isinstance(one, int) for one in (self.low, self.high, 1 if self.step is None else self.step))

    def register(self, hp, name):
        """Registers the range on KerasTuner's `hp`; returns the value that holds."""
        kind = hp.Int if self.is_whole else hp.Float
        return kind(name, self.low, self.high, step=self.step, sampling="log" if self.log else "linear")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchSpace:
    """What may vary: each field is one value, a list of distinct values, or a `Range`. None is left alone.

    Args:
        loss: name of a class of `keras_siamese.losses`, or an instance, whose other options stay; of losses on pairs,
            triplets or whole batches. (Proxy losses need the number of classes, which differs from fold to fold.)
        margin: of the losses that have one, in their own units; the loss's own by default.
        relative_margin: the margin as a share, in (0, 1], of the most that the distance can reach on unit vectors:
            with "cosine" 0.5 is 1.0, with "angular" 0.5. For losses on a distance; in place of `margin`.
        distance: name from `keras_siamese.distances.names()`. Losses that have their own similarity do not use it.
        head: for losses on probabilities: "logistic" (default), or a function that returns a layer.
        embedding_dim: for an `encoder` with a parameter of this name; ≥ 1.
        learning_rate: above 0.
        optimizer: name that `keras.optimizers.get` knows.
        batch_size: pairs or triplets in a batch, ≥ 1.
        classes_per_batch, samples_per_class: the make-up of the batches of batch losses, each ≥ 2.
        mining: "none" or "hard": for pairs and triplets `HardPairRefresh`, for batch losses with `negatives` that
            option, "all" or "hard". If all losses of the space have `negatives`, also "semi_hard", "easy" and
            "distance_weighted".
        positive_fraction: share of genuine pairs, in (0, 1], for losses on pairs.
        augmentation: strength ≥ 0, which `SiameseHyperModel(augment=…)` turns into an augmentation; 0 is none.
        encoder: dict of further fields for parameters of the encoder, by name.

    Raises:
        ValueError, TypeError: naming the field: an unknown name, an empty list, a value out of range, a field that no
            loss of the space uses.

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
        object.__setattr__(self, "losses", check_losses(self.loss))
        object.__setattr__(self, "heads", check_heads(self.head))
        if not isinstance(self.encoder, dict):
            raise TypeError(f"`encoder` must be a dict of fields; got {self.encoder!r}")
        object.__setattr__(self, "fields", self._checked_fields())
        if self.margin is not None and self.relative_margin is not None:
            raise ValueError("`relative_margin` must be None where `margin` is given; got both")
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name in self.fields and value != field.default and not self.users(field.name):
                names = ", ".join(self.losses)
                raise ValueError(f"`{field.name}` is used by no `loss` of the space; got {value!r} with {names}")

    def _checked_fields(self):
        """By hyperparameter's name, a `Range` or a list of values."""
        fields = {"loss": list(self.losses)}
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if field.name not in ("loss", "head", "encoder") and value is not None:
                fields[field.name] = check_field(field.name, value)
        fields["head"] = list(self.heads)
        for name in fields["distance"]:
            distances.get(name)
        for name in fields["optimizer"]:
            check_optimizer(name)
        having = [name for name in self.losses if uses(self.losses[name], "mining")]
        mined = all("negatives" in self.losses[name].get_config() for name in having)
        for name in fields["mining"]:
            _checks.check_choice("mining", name, MINING if mined else MINING[:2])
        for name, value in self.encoder.items():
            if name in {field.name for field in dataclasses.fields(self)}:
                raise ValueError(f"`encoder` must hold no field that the space has itself; got {name!r}")
            fields[name] = check_field(f"encoder[{name!r}]", value)
        return fields

    def users(self, name):
        """The names of the losses that use the field `name`."""
        return [loss for loss, instance in self.losses.items() if uses(instance, name)]

    def declare(self, hp):
        """Registers the space on KerasTuner's `HyperParameters`; returns the values that hold, by name."""
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
    """Registers a `Range` or a list of values; returns the value that holds, None if its condition does not."""
    if isinstance(choices, Range):
        return choices.register(hp, name)
    return hp.Fixed(name, choices[0]) if len(choices) == 1 else hp.Choice(name, choices)


def kind_of(loss):
    """How a loss is fed: "pairs", "triplets" or "batch"."""
    return "triplets" if isinstance(loss, losses.TripletLoss) else KINDS[loss.expects]


def uses(loss, name):
    """Whether a loss uses the field `name`; what is no field of some losses only is used with all."""
    kind, options = kind_of(loss), loss.get_config()
    compares = kind != "batch" or "distance" in options
    special = {
        "margin": "margin" in options,
        "relative_margin": "margin" in options and compares and loss.expects != "score",
        "distance": compares,
        "head": loss.expects == "score",
        "mining": kind != "batch" or "negatives" in options,
        "positive_fraction": kind == "pairs",
        "batch_size": kind != "batch",
        "classes_per_batch": kind == "batch",
        "samples_per_class": kind == "batch",
    }
    return special.get(name, True)


def check_losses(loss):
    """Returns losses by name, of a name, an instance or a list of them; a class's name, or the instance's own."""
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
        raise ValueError("`loss` must hold a loss; got an empty list")
    return found


def with_defaults(cls):
    """A loss with its own options, if it has one for each."""
    try:
        return cls()
    except TypeError as error:
        raise ValueError(f"`loss` must be an instance where the class has no defaults, as {cls.__name__}") from error


def is_of_use(cls):
    """Whether a class is a loss on pairs, triplets or batches that may be compiled."""
    bases = (losses.SiameseLoss, losses.PairLoss, losses.BatchLoss, losses.ProxyLoss)
    return issubclass(cls, losses.SiameseLoss) and cls not in bases and cls.expects in KINDS


def check_heads(head):
    """Returns heads by name: "logistic", and functions that return a layer, by their own."""
    found = {}
    for one in head if isinstance(head, (list, tuple)) else [head]:
        if not callable(one):
            _checks.check_choice("head", one, ("logistic",))
        name = getattr(one, "__name__", type(one).__name__) if callable(one) else one
        if name in found or isinstance(one, keras.layers.Layer):
            raise ValueError(f"`head` must hold distinct functions, each of which returns a layer; got {one!r}")
        found[name] = one
    if not found:
        raise ValueError("`head` must hold a head; got an empty list")
    return found


def check_field(name, value):
    """Returns a `Range` as it is, and else a list of one or several distinct values of one type."""
    if isinstance(value, tuple):
        raise TypeError(f"`{name}` must be a value, a list, or Range(low, high); got the tuple {value!r}")
    if isinstance(value, Range):
        if name not in LOW and not name.startswith("encoder["):
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
    """Returns a value of the field `name` as Python's own str, bool, int or float, if it is in range."""
    value = value.item() if hasattr(value, "item") else value
    if name in WHOLE:
        return _checks.check_integer(name, value, low=LOW[name][0])
    if name in LOW:
        low, is_open = LOW[name]
        high = HIGH.get(name, float("inf"))
        return _checks.check_number(name, value, low=low, open_low=is_open, high=high, open_high=high != 1)
    if not isinstance(value, (str, bool, int, float)):
        raise TypeError(f"`{name}` must be strings, booleans or numbers; got {value!r} of type {type(value).__name__}")
    return value


def check_optimizer(name):
    """Refuses what `keras.optimizers.get` does not know."""
    try:
        keras.optimizers.get(name)
    except ValueError as error:
        raise ValueError(f"`optimizer` must be a name that keras.optimizers.get knows; got {name!r}") from error
