"""Batch losses on triplets: a positive should be nearer to its anchor than a negative, by a margin.

Contract: as in `base`: identities `(batch,)` and embeddings `(batch, dim)`. Embeddings are not normalised: end the
encoder with `UnitNormalization` to use margins for unit vectors. Memory is O(batch²), also for all triplets.

    encoder.compile("adam", loss=BatchTripletLoss(margin=0.2))
    encoder.compile("adam", loss=BatchTripletLoss(positives="hard", negatives="semi_hard"))
    encoder.compile("adam", loss=TripletSemiHardLoss())                 # same values as in tensorflow-addons
"""

from __future__ import annotations

import math
from typing import Any, Literal

from keras import ops

from keras_siamese import distances
from keras_siamese._checks import check_choice
from keras_siamese._export import export
from keras_siamese._types import BatchOptions, DistanceLike, DistanceOptions, Unpack
from keras_siamese.losses.batch import mining as miner
from keras_siamese.losses.batch.base import BatchLoss, Terms, above_zero, check_distance, check_margin, of_rows
from keras_siamese.losses.batch.rows import Rows
from keras_siamese.ops import column, count, masked_max

STRATEGIES = ("all", "hard", "semi_hard", "easy")


class DistanceLoss(BatchLoss):
    """Base class of the batch losses that use distances.

    Args:
        distance: a name from `keras_siamese.distances.names()`, a `Distance`, or a function `(a, b) → (n,)`; it must
            not have weights.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.
    """

    def __init__(self, distance: DistanceLike = "euclidean", **kwargs: Unpack[BatchOptions]) -> None:
        super().__init__(**kwargs)
        self.distance = check_distance("distance", distance)

    @property
    def distance_margin(self) -> float | None:
        return getattr(self, "margin", None)


def soft_hinge(gap, margin):
    """log(1 + exp(gap + m)) and its derivative."""
    return ops.softplus(gap + margin), ops.sigmoid(gap + margin)


def batch_triplet(rows, margin=0.2, positives="all", negatives="all", soft=False):
    """`Terms` of [d_ap − d_an + m]₊, or softplus(d_ap − d_an + m), over the triplets of `BatchTripletLoss`."""
    cost = soft_hinge if soft else miner.hinge
    drawn = negatives == "distance_weighted"
    weights = miner.distance_weights(rows) if drawn else ops.cast(rows.negative, rows.matrix.dtype)
    walked = negatives in ("all", "semi_hard", "distance_weighted")
    if positives == "all" and walked:
        if negatives == "all" and not soft:
            sums = miner.all_triplets(rows, margin)
        else:
            # Semi-hard triplets: the negative is beyond the positive by at most the margin.
            semi_hard = (lambda gap: (gap < 0) & (gap + margin >= 0)) if negatives == "semi_hard" else None
            sums = miner.walk_triplets(rows, lambda gap: cost(gap, margin), weights, semi_hard)
        total, active, slopes = sums
        total, active = miner.with_gradient(total, slopes, rows.matrix), ops.stop_gradient(active)
        return Terms(total, active, lambda: count(rows.positive) * count(rows.negative))
    if positives == "all":
        _, far, valid = miner.one_negative(rows, negatives)
        costs = cost(rows.matrix - column(far), margin)[0]
        return above_zero(costs, rows.positive & column(valid))
    if negatives in ("all", "distance_weighted"):
        _, near, valid = miner.one_positive(rows, positives)
        costs = cost(column(near) - rows.matrix, margin)[0]
        weights = ops.where(column(valid), weights, 0.0)
        active = ops.where(costs > 0, weights, 0.0)
        return Terms(ops.sum(weights * costs, axis=1), ops.sum(active, axis=1), lambda: ops.sum(weights, axis=1))
    if positives == "semi_hard":
        _, far, has_negative = miner.one_negative(rows, negatives)
        _, near, has_positive = miner.one_positive(rows, positives, far)
    else:
        _, near, has_positive = miner.one_positive(rows, positives)
        _, far, has_negative = miner.one_negative(rows, negatives, near)
    costs = column(cost(near - far, margin)[0])
    return above_zero(costs, column(has_positive & has_negative))


@export
class BatchTripletLoss(DistanceLoss):
    """Triplet loss on the triplets in a batch: mean of [d(a, p) − d(a, n) + m]₊ over the values above zero.

    y_true identities `(batch,)`; y_pred embeddings `(batch, dim)`. The loss over all triplets is exact and takes
    O(batch² log batch) time. Same value as pytorch-metric-learning's `TripletMarginLoss(triplets_per_anchor="all")`,
    alone or with its `BatchEasyHardMiner`; (all, semi_hard) equals its `TripletMarginMiner("semihard")`.

    Schroff, Kalenichenko, Philbin, *FaceNet: A Unified Embedding for Face Recognition and Clustering*, CVPR 2015,
    https://arxiv.org/abs/1503.03832. Hard: Hermans, Beyer, Leibe, *In Defense of the Triplet Loss*, 2017,
    https://arxiv.org/abs/1703.07737. Distance-weighted: Wu, Manmatha, Smola, Krähenbühl, *Sampling Matters in Deep
    Embedding Learning*, ICCV 2017, https://arxiv.org/abs/1706.07567

    Args:
        margin: m ≥ 0, in units of the distance.
        positives: "all" positives of an anchor, the farthest ("hard"), the nearest ("easy"), or the farthest that is
            nearer than the chosen negative ("semi_hard").
        negatives: "all" negatives, the nearest ("hard"), the farthest ("easy"), or the nearest beyond the chosen
            positive ("semi_hard"; with all positives, every negative beyond the positive by at most the margin).
            "distance_weighted" takes the expected loss of the paper's random sampling (for unit-norm embeddings and the
            Euclidean distance).
        soft: use log(1 + exp(·)) instead of the hinge.
        **kwargs: `distance`, `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `DistanceLoss`.

    >>> loss = BatchTripletLoss(margin=0.5)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    1.0
    """

    hinged = True
    margin_is_gap = True

    def __init__(
        self,
        margin: float = 0.2,
        positives: Literal["all", "hard", "easy", "semi_hard"] = "all",
        negatives: Literal["all", "hard", "easy", "semi_hard", "distance_weighted"] = "all",
        soft: bool = False,
        **kwargs: Unpack[DistanceOptions],
    ) -> None:
        super().__init__(**kwargs)
        self.margin = check_margin("margin", margin, self.distance)
        self.positives = check_choice("positives", positives, STRATEGIES)
        self.negatives = check_choice("negatives", negatives, (*STRATEGIES, "distance_weighted"))
        self.soft = bool(soft)
        if positives == "semi_hard" and negatives in ("semi_hard", "all", "distance_weighted"):
            need = 'needs one negative for each anchor: `negatives` must be "hard" or "easy"'
            raise ValueError(f'`positives="semi_hard"` {need}; got {negatives!r}')
        if negatives == "distance_weighted" and not isinstance(self.distance, distances.EuclideanDistance):
            need = "needs the Euclidean distance (of unit-norm embeddings)"
            raise ValueError(f'`negatives="distance_weighted"` {need}; got {self.distance!r}')

    @property
    def mining(self) -> tuple[str, str] | None:
        chosen = self.positives, self.negatives
        return None if chosen == ("all", "all") else chosen

    def value_at_collapse(self, positive_fraction: float | None = None) -> float | None:
        if "semi_hard" in (self.positives, self.negatives):
            return 0.0  # no triplet is semi-hard if all distances are equal
        return math.log1p(math.exp(self.margin)) if self.soft else self.margin

    def terms(self, rows: Rows) -> list[Terms]:
        return [batch_triplet(rows, self.margin, self.positives, self.negatives, self.soft)]


# tensorflow-addons' names for its distances
ADDONS_METRICS: dict[Any, Any] = {"L2": "euclidean", "squared-L2": "squared_euclidean", "angular": "cosine"}


class AddonsTripletLoss(BatchLoss):
    """Base class of the two triplet losses of tensorflow-addons; its arguments are those of `TripletHardLoss`."""

    hinged = True
    margin_is_gap = True
    soft = False

    def __init__(
        self, margin: float = 1.0, distance_metric: DistanceLike = "L2", **kwargs: Unpack[BatchOptions]
    ) -> None:
        super().__init__(**kwargs)
        named = isinstance(distance_metric, str)
        known = ADDONS_METRICS.get(distance_metric, distance_metric) if named else distance_metric
        self.distance = check_distance("distance_metric", known)
        self.distance_metric = distance_metric if named else self.distance
        self.margin = check_margin("margin", margin, self.distance)

    @property
    def distance_margin(self) -> float | None:
        return None if self.soft else self.margin

    def value_at_collapse(self, positive_fraction: float | None = None) -> float | None:
        return math.log(2.0) if self.soft else self.margin


@export
class TripletSemiHardLoss(AddonsTripletLoss):
    """Triplet loss with semi-hard negatives: the mean over positive pairs of [d(a, p) − d(a, n) + m]₊.

    n is the nearest negative that is farther from the anchor than p, or the farthest negative if there is none. y_true
    identities `(batch,)`; y_pred embeddings `(batch, dim)`, preferably of unit norm. Same defaults and values as
    tensorflow-addons' `TripletSemiHardLoss`, but a batch without a positive or negative pair has loss 0, not NaN.

    Schroff, Kalenichenko, Philbin, *FaceNet: A Unified Embedding for Face Recognition and Clustering*, CVPR 2015,
    https://arxiv.org/abs/1503.03832

    Args:
        **kwargs: `margin`, `distance_metric`, `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in
            `TripletHardLoss`.

    >>> loss = TripletSemiHardLoss(margin=0.5)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    1.0
    """

    mining = ("all", "semi_hard")

    def terms(self, rows: Rows) -> list[Terms]:
        total, active, slopes = miner.semi_hard_triplets(rows, self.margin)
        pairs = count(rows.positive & column(rows.has_negative))
        return [Terms(miner.with_gradient(total, slopes, rows.matrix), pairs, lambda: pairs, lambda: active)]


def of_gaps(gap, valid, margin):
    """`Terms` of [gap + m]₊, or log(1 + exp(gap)) if m is None, over the `valid` rows; all `(rows,)`."""
    gap = ops.where(valid, gap, 0.0)
    costs = ops.softplus(gap) if margin is None else ops.relu(gap + margin)
    term = of_rows(costs, valid)
    return Terms(term.total, term.count, lambda: term.count, lambda: ops.cast(valid & (costs > 0), "float32"))


@export
class TripletHardLoss(AddonsTripletLoss):
    """Triplet loss with the hardest triplets: the mean over anchors of [max d(a, p) − min d(a, n) + m]₊.

    Each anchor uses its farthest positive and its nearest negative. y_true identities `(batch,)`; y_pred embeddings
    `(batch, dim)`, preferably of unit norm. Same defaults and values as tensorflow-addons' `TripletHardLoss`, except
    for anchors without a positive or a negative: they are left out here, while tensorflow-addons uses a distance of 0
    or the distance of the nearest row.

    Hermans, Beyer, Leibe, *In Defense of the Triplet Loss for Person Re-Identification*, 2017,
    https://arxiv.org/abs/1703.07737

    Args:
        margin: m ≥ 0, in units of the distance; not used if `soft`.
        soft: use log(1 + exp(max d(a, p) − min d(a, n))) instead of the hinge.
        distance_metric: "L2" (default), "squared-L2" or "angular" (1 − cos), or anything that
            `keras_siamese.distances.get` takes.
        **kwargs: `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in `BatchLoss`.

    >>> loss = TripletHardLoss(margin=0.5)
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    1.0
    """

    mining = ("hard", "hard")

    def __init__(
        self,
        margin: float = 1.0,
        soft: bool = False,
        distance_metric: DistanceLike = "L2",
        **kwargs: Unpack[BatchOptions],
    ) -> None:
        super().__init__(margin, distance_metric, **kwargs)
        self.soft = bool(soft)

    def terms(self, rows: Rows) -> list[Terms]:
        _, near, _ = miner.one_positive(rows, "hard")
        _, far, _ = miner.one_negative(rows, "hard")
        return [of_gaps(near - far, rows.has_both, None if self.soft else self.margin)]


def positive_negative(rows, between, margin=None, positives="hard", negatives="semi_hard"):
    """`Terms` of [d_ap − min(d_an, d_pn) + m]₊ for each row, or of log(1 + exp(·)) if m is None.

    `between` returns d_pn: the distances `(rows,)` between two arrays of embeddings `(rows, dim)`, row by row.
    """
    p, near, _ = miner.one_positive(rows, positives)
    among = rows.negative
    if negatives == "semi_hard":
        beyond = among & (rows.matrix > column(masked_max(rows.matrix, rows.positive)))
        # If no negative is beyond all positives, the farthest negative is used.
        farthest, _, _ = miner.pick(rows.matrix, among, nearest=False)
        none_beyond = ops.logical_not(ops.any(beyond, axis=1, keepdims=True))
        among = beyond | ((rows.columns == column(farthest)) & none_beyond)
    n, far, _ = miner.pick(rows.matrix, among, nearest=negatives != "easy")
    apart = between(*(ops.take(rows.batch.embeddings, chosen, axis=0) for chosen in (p, n)))
    return of_gaps(near - ops.minimum(far, apart), rows.has_both, margin)


@export
class PNLoss(DistanceLoss):
    """PN loss: the mean over anchors of softplus(d(a, p) − min(d(a, n), d(p, n))).

    The negative must be far from the anchor and from the positive. p is the anchor's farthest positive; n is its
    nearest negative beyond all positives, or the farthest negative if there is none. y_true identities `(batch,)`;
    y_pred embeddings `(batch, dim)`. Same value and defaults as TensorFlow Similarity's `PNLoss`.

    Balntas, Johns, Tang, Mikolajczyk, *PN-Net: Conjoined Triple Deep Network for Learning Local Image Descriptors*,
    2016, https://arxiv.org/abs/1601.05030

    Args:
        margin: None (default) for the soft form, or m ≥ 0 for [d(a, p) − min(d(a, n), d(p, n)) + m]₊.
        positives: the farthest ("hard", default) or the nearest ("easy").
        negatives: "semi_hard" (default), the nearest ("hard") or the farthest ("easy").
        **kwargs: `distance` ("cosine" by default), `block_size`, `local_negatives`, `reduction`, `name`, `dtype` as in
            `DistanceLoss`.

    >>> loss = PNLoss(distance="euclidean")
    >>> round(float(loss(ops.array([7, 7, 9]), ops.array([[0.0, 0.0], [0.0, 1.0], [0.0, 0.75]]))), 4)
    1.1369
    """

    margin_is_gap = True

    def __init__(
        self,
        margin: float | None = None,
        positives: Literal["hard", "easy"] = "hard",
        negatives: Literal["semi_hard", "hard", "easy"] = "semi_hard",
        distance: DistanceLike = "cosine",
        **kwargs: Unpack[BatchOptions],
    ) -> None:
        super().__init__(distance=distance, **kwargs)
        self.margin = None if margin is None else check_margin("margin", margin, self.distance)
        self.positives = check_choice("positives", positives, ("hard", "easy"))
        self.negatives = check_choice("negatives", negatives, ("semi_hard", "hard", "easy"))

    @property
    def mining(self) -> tuple[str, str] | None:
        return self.positives, self.negatives

    def value_at_collapse(self, positive_fraction: float | None = None) -> float | None:
        return math.log(2.0) if self.margin is None else self.margin

    def terms(self, rows: Rows) -> list[Terms]:
        return [positive_negative(rows, self.distance.between, self.margin, self.positives, self.negatives)]
