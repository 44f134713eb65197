"""Triplet losses: y_pred `(batch, 2)` holds d(anchor, positive) and d(anchor, negative); y_true is ignored.

Contract: a pure function `(d_ap, d_an, …) → (batch,)` and a small Keras class. A siamese model called on
`(anchor, positive, negative)` returns the two distances. Keras requires a y_true, for example zeros.

    siamese.compile("adam", loss=TripletLoss(margin=0.2))
    siamese.fit((anchor, positive, negative), np.zeros(len(anchor)))
"""

from __future__ import annotations

import math

from keras import ops

from keras_siamese._checks import check_number
from keras_siamese._export import export
from keras_siamese._types import LossOptions, Tensor, Unpack
from keras_siamese.losses.base import SiameseLoss, refuse_margin
from keras_siamese.losses.statistics import STATISTICS
from keras_siamese.ops import at_least_float32


def triplet(positive_distance, negative_distance, margin=1.0, soft=False):
    """[d_ap − d_an + m]₊ of two distances `(batch,)`, or softplus(d_ap − d_an): `(batch,)`."""
    gap = positive_distance - negative_distance
    return ops.softplus(gap) if soft else ops.relu(gap + margin)


@export
class TripletLoss(SiameseLoss):
    """Triplet loss: [d_ap − d_an + m]₊.

    The negative should be farther from the anchor than the positive by the margin. y_true is ignored; y_pred
    `(batch, 2)` = d(a, p), d(a, n), or `(batch, 3)` with d(p, n) last if the model and the loss use ``swap=True``.

    Schroff, Kalenichenko, Philbin, *FaceNet: A Unified Embedding for Face Recognition and Clustering*, CVPR 2015,
    https://arxiv.org/abs/1503.03832. Soft: Hermans, Beyer, Leibe, *In Defense of the Triplet Loss*, 2017,
    https://arxiv.org/abs/1703.07737. Swap: Balntas, Riba, Ponsa, Mikolajczyk, *Learning Local Feature Descriptors
    with Triplets and Shallow Convolutional Neural Networks*, BMVC 2016.

    Args:
        margin: m > 0, in units of the distance. If the model's distances cannot differ by it, training raises an error.
        soft: use softplus(d_ap − d_an) instead of the hinge; the margin is then not used.
        swap: use min(d_an, d_pn) as the negative's distance.
        reduction, name, dtype: as in `keras.losses.Loss`.

    >>> loss = TripletLoss(margin=0.5, reduction="none")
    >>> [round(float(value), 2) for value in loss(ops.zeros(2), ops.array([[0.2, 0.4], [0.1, 0.9]]))]
    [0.3, 0.0]
    """

    kind = "triplet"
    margin_is_gap = True

    def __init__(
        self, margin: float = 1.0, soft: bool = False, swap: bool = False, **kwargs: Unpack[LossOptions]
    ) -> None:
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, open_low=True, open_high=True)
        self.soft = bool(soft)
        self.swap = bool(swap)

    @property
    def distance_margin(self) -> float | None:
        return None if self.soft else self.margin

    def value_at_collapse(self, positive_fraction: float | None = None) -> float | None:
        return math.log(2.0) if self.soft else self.margin

    def values_and_statistics(
        self, y_true: Tensor, y_pred: Tensor, wanted: bool
    ) -> tuple[Tensor, dict[str, tuple[Tensor, Tensor]]]:
        columns = 3 if self.swap else 2
        if len(y_pred.shape) != 2 or y_pred.shape[1] != columns:
            shape = tuple(y_pred.shape)
            swap = f": use swap={self.swap} in the siamese model or DistanceLayer, or swap={not self.swap} in the loss"
            hint = swap if len(shape) == 2 and shape[1] in (2, 3) else ""
            raise ValueError(f"`y_pred` must have shape (batch, {columns}); got {shape}{hint}")
        distances = at_least_float32(y_pred)
        positive = distances[:, 0]
        negative = ops.minimum(distances[:, 1], distances[:, 2]) if self.swap else distances[:, 1]
        losses = triplet(positive, negative, self.margin, self.soft)
        if not wanted:
            return losses, {}
        sums = ops.sum(positive), ops.sum(negative), ops.sum(ops.cast(losses > 0, losses.dtype))
        triplets = ops.sum(ops.ones_like(losses))
        return losses, {name: (total, triplets) for name, total in zip(STATISTICS, sums, strict=True)}

    def statistic_names(self) -> tuple[str, ...]:
        return STATISTICS[: 2 if self.soft else 3]

    def check_reach(self, low: float, high: float) -> None:
        if not self.soft:
            refuse_margin(self, "margin", self.margin, high - low, low, high)
