"""What every loss shares: one value a row, a stated kind of input, refusal of a model that cannot feed it.

Contract: `call(y_true, y_pred)` returns `(batch,)`, scaled so that Keras's mean over the batch is the paper's
normalisation. Losses import `_checks`, `_export`, `ops` and `distances`; nothing here knows the model, which
hands over what it puts out.
"""

import inspect

import keras

from keras_siamese._checks import check_choice


class SiameseLoss(keras.losses.Loss):
    """Base of the losses: `expects` names what `y_pred` holds, `check_output` compares it with a model's output.

    `call(y_true, y_pred)` returns one value a row, `(batch,)`.

    Attributes:
        expects: "distance", "score" (a probability of being the same), or "embedding".
    """

    expects = "distance"

    def __init__(self, reduction="sum_over_batch_size", name=None, dtype=None, **unknown):
        if unknown:
            names = ", ".join(option_names(type(self)))
            raise TypeError(f"{type(self).__name__} takes the options {names}; got {', '.join(unknown)}")
        # The first Keras 3 releases take no dtype policy here; float32 is theirs and ours by default.
        super().__init__(name=name, reduction=reduction, **({} if dtype is None else {"dtype": dtype}))

    def check_output(self, kind, bounds):
        """Refuses a model whose output this loss cannot work on.

        Args:
            kind: "distance" or "score".
            bounds: `(lowest, highest)` reachable value, infinite where not known, or None.

        Raises:
            ValueError: saying which option of the model or the loss to change.
        """
        if kind != self.expects:
            fitting = {"distance": "SiameseWrapper(…, head=None)", "score": 'SiameseWrapper(…, head="logistic")'}
            raise ValueError(
                f"{type(self).__name__} expects y_pred to hold {self.expects}s, and the model puts out {kind}s: "
                f"use {fitting.get(self.expects, 'the encoder itself')} or another loss"
            )
        if bounds is not None:
            self.check_reach(*bounds)

    def check_reach(self, low, high):
        """Refuses a margin that distances in [low, high] cannot reach; losses without a margin accept all."""


def option_names(loss):
    """The keyword arguments of a loss class and of its bases, down to `SiameseLoss`."""
    classes = [cls for cls in loss.__mro__ if issubclass(cls, SiameseLoss) and "__init__" in vars(cls)]
    parameters = [option for cls in classes for option in inspect.signature(cls.__init__).parameters.values()]
    named = [option.name for option in parameters if option.kind is not option.VAR_KEYWORD]
    return [name for name in dict.fromkeys(named) if name != "self"]


def check_similar_label(value):
    return check_choice("similar_label", value, (0, 1))


def refuse_margin(loss, name, value, reach, low, high):
    """Raises if `value` is past `reach`, the largest one that distances in [low, high] can satisfy."""
    if value > reach:
        raise ValueError(
            f"`{name}` of {type(loss).__name__} must be at most {reach:g}, the most that the model's distances in "
            f"[{low:g}, {high:g}] can reach; got {value:g}"
        )
