"""What every loss of the package shares: one value a row, a stated kind of input, refusal of a model that cannot feed it.

Contract: `call(y_true, y_pred)` returns `(batch,)`, scaled so that Keras's mean over the batch is the paper's normalisation. Losses
import `_checks`, `_export`, `ops` and `distances`; nothing here knows the model, which hands over what it puts out.
"""

import keras

from keras_siamese._checks import check_choice


class SiameseLoss(keras.losses.Loss):
    """Base of the losses: `expects` names what `y_pred` holds, and `check_output` compares it with what a model puts out.

    Attributes:
        expects: "distance", "score" (a probability of being the same), or "embedding".
    """

    expects = "distance"

    def __init__(self, reduction="sum_over_batch_size", name=None, dtype=None):
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
            better = {"distance": "head=None", "score": 'head="logistic"'}[self.expects]
            raise ValueError(
                f"{type(self).__name__} expects y_pred to be a {self.expects}, and the model puts out a {kind}: "
                f"use SiameseWrapper(…, {better}) or another loss"
            )
        if bounds is not None:
            self.check_reach(*bounds)

    def check_reach(self, low, high):
        """Refuses a margin that distances in [low, high] cannot reach; losses without a margin accept all."""


def check_similar_label(value):
    return check_choice("similar_label", value, (0, 1))


def refuse_margin(loss, name, value, reach, low, high):
    """Raises if `value` is past `reach`, the largest one that distances in [low, high] can satisfy."""
    if value > reach:
        raise ValueError(
            f"`{name}` of {type(loss).__name__} must be at most {reach:g}, the most that the model's distances in "
            f"[{low:g}, {high:g}] can reach; got {value:g}"
        )
