"""Pair losses: y_true `(batch,)` says same or not, y_pred `(batch, 1)` is a distance or a probability.

Contract: each loss is a pure function `(same, y_pred, …) → (batch,)` with `same` 1 for genuine and 0 for impostor
pairs, and a thin Keras class that holds its options. `(batch,)` and `(batch, 1)` are aligned, anything else is
refused.

    siamese.compile("adam", loss=ContrastiveLoss(margin=1.0))
    siamese.compile("adam", loss=ContrastiveLoss(similar_label=0))       # a project whose label 1 means different
    siamese.compile("adam", loss=WeightedBinaryCrossentropy("balanced")) # with SiameseWrapper(head="logistic")
    siamese.compile("adam", loss=OnlineContrastiveLoss(margin=0.5))      # only the pairs that are still out of order
    contrastive(same, distance, margin=1.0)                              # (batch,)
"""

import math

from keras import ops

from keras_siamese._checks import check_choice, check_number
from keras_siamese._export import export
from keras_siamese.losses.base import SiameseLoss, check_similar_label, refuse_margin
from keras_siamese.ops import at_least_float32, pair_rows


def contrastive(same, distance, margin=1.0, positive_margin=0.0, squared=True):
    """y·[d − m₊]₊² + (1 − y)·[m − d]₊², or its terms unsquared: `(batch,)`.

    Args:
        same: `(batch,)`, 1 = same.
        distance: `(batch,)`, ≥ 0.
        margin: m, the distance beyond which an impostor pair costs nothing.
        positive_margin: m₊, the distance within which a genuine pair costs nothing.
        squared: whether the hinges are squared.
    """
    power = ops.square if squared else (lambda hinge: hinge)
    return same * power(ops.relu(distance - positive_margin)) + (1.0 - same) * power(ops.relu(margin - distance))


def margin_loss(same, distance, margin=0.2, beta=1.2):
    """y·[d − β + m]₊ + (1 − y)·[β − d + m]₊: `(batch,)`.

    Args:
        same: `(batch,)`, 1 = same.
        distance: `(batch,)`.
        margin: m, half the gap between the genuine and the impostor pairs that cost nothing.
        beta: β, the distance in the middle of that gap.
    """
    return same * ops.relu(distance - beta + margin) + (1.0 - same) * ops.relu(beta - distance + margin)


def online_contrastive(same, distance, margin=0.5):
    """y·d² + (1 − y)·[m − d]₊² of the hard pairs, 0 of the others: `(batch,)`.

    A genuine pair is hard if it is farther than the closest impostor pair of the batch, an impostor pair if it is
    closer than the farthest genuine pair. In a batch of one kind alone its own mean stands for the bound.

    Args:
        same: `(batch,)`, 1 = same.
        distance: `(batch,)`, ≥ 0.
        margin: m, the distance beyond which an impostor pair costs nothing.
    """
    genuine = same > 0.5
    mean = ops.mean(distance)
    far = ops.full_like(distance, float("inf"))
    closest = ops.min(ops.where(genuine, far, distance))
    farthest = ops.max(ops.where(genuine, distance, -far))
    closest = ops.where(ops.all(genuine), mean, closest)
    farthest = ops.where(ops.any(genuine), farthest, mean)
    # Asked for the easy pairs: a NaN is neither, and must stay in the loss.
    easy = ops.where(genuine, distance <= closest, distance >= farthest)
    losses = contrastive(ops.cast(genuine, distance.dtype), distance, margin)
    return ops.where(easy, ops.zeros_like(losses), losses)


def weighted_binary_crossentropy(same, prediction, class_weight=None, from_logits=False):
    """w_y·BCE·B / Σ w_y, whose mean over the batch of B is Σ w_y·BCE / Σ w_y: `(batch,)`.

    Args:
        same: `(batch,)`, 1 = same.
        prediction: `(batch,)`, p(same) in [0, 1], or its logit.
        class_weight: None, "balanced" (n / 2n_y of the batch, as scikit-learn's `compute_sample_weight`) or `(w₀, w₁)`.
        from_logits: whether `prediction` is a logit.
    """
    losses = ops.binary_crossentropy(ops.expand_dims(same, 1), ops.expand_dims(prediction, 1), from_logits=from_logits)
    losses = ops.squeeze(losses, axis=1) if len(losses.shape) == 2 else losses
    if class_weight is None:
        return losses
    if isinstance(class_weight, str):
        genuine, impostor = ops.sum(same), ops.sum(1.0 - same)
        # Half of the weight on each class; the common factor cancels. A batch of one class weighs all alike.
        weights = same / ops.maximum(genuine, 1.0) + (1.0 - same) / ops.maximum(impostor, 1.0)
    else:
        weights = class_weight[0] * (1.0 - same) + class_weight[1] * same
    total = ops.sum(weights)
    mean_weight = total / ops.cast(ops.shape(weights)[0], weights.dtype)
    return losses * weights / ops.where(total > 0, mean_weight, ops.ones_like(total))


class PairLoss(SiameseLoss):
    """Base of the pair losses: reads the labels, calls `per_pair`, weighs the two classes.

    y_true `(batch,)` 1 = same; y_pred `(batch, 1)`.

    Args:
        positive_weight, negative_weight: ≥ 0, factor on the losses of genuine and of impostor pairs.
        similar_label: the value of y_true that means same, 1 (default) or 0.
        reduction, name, dtype: as in `keras.losses.Loss`.
    """

    def __init__(self, positive_weight=1.0, negative_weight=1.0, similar_label=1, **kwargs):
        super().__init__(**kwargs)
        self.positive_weight = check_number("positive_weight", positive_weight, low=0, open_high=True)
        self.negative_weight = check_number("negative_weight", negative_weight, low=0, open_high=True)
        self.similar_label = check_similar_label(similar_label)

    @property
    def distance_margin(self):
        return getattr(self, "margin", None)

    def value_at_collapse(self, positive_fraction=None):
        if positive_fraction is None or self.expects != "distance":
            return None
        impostor, genuine = ops.convert_to_numpy(self.per_pair(ops.convert_to_tensor([0.0, 1.0]), ops.zeros(2)))
        weighted = (1.0 - positive_fraction) * self.negative_weight * impostor
        return float(weighted + positive_fraction * self.positive_weight * genuine)

    def call(self, y_true, y_pred):
        same, prediction = self.read(y_true, y_pred)
        losses = self.per_pair(same, prediction)
        if self.observers:
            self.record(self.statistics_of(same, prediction, losses))
        if self.positive_weight == self.negative_weight == 1.0:
            return losses
        return losses * (self.positive_weight * same + self.negative_weight * (1.0 - same))

    def read(self, y_true, y_pred):
        """`same` `(batch,)`, 1 = same, and y_pred `(batch,)`, in at least float32."""
        label, prediction = pair_rows(y_true, y_pred)
        prediction = at_least_float32(prediction)
        label = ops.cast(label, prediction.dtype)
        return (label if self.similar_label == 1 else 1.0 - label), prediction

    def statistic_names(self):
        return ("positive_distance", "negative_distance", "active_fraction") if self.expects == "distance" else ()

    def statistics(self, y_true, y_pred):
        same, prediction = self.read(y_true, y_pred)
        return self.statistics_of(same, prediction, self.per_pair(same, prediction))

    def statistics_of(self, same, distance, losses):
        """By name, sum and count over pairs of the distances of each kind, and of the pairs that cost something."""
        return {
            "positive_distance": (ops.sum(same * distance), ops.sum(same)),
            "negative_distance": (ops.sum((1.0 - same) * distance), ops.sum(1.0 - same)),
            "active_fraction": (ops.sum(ops.cast(losses > 0, losses.dtype)), ops.sum(ops.ones_like(losses))),
        }

    def per_pair(self, same, prediction):
        """The loss of each pair `(batch,)` from `same` `(batch,)` (1 = same) and y_pred `(batch,)`."""
        raise NotImplementedError

    def get_config(self):
        return {
            **super().get_config(),
            "positive_weight": self.positive_weight,
            "negative_weight": self.negative_weight,
            "similar_label": self.similar_label,
        }


@export
class ContrastiveLoss(PairLoss):
    """y·[d − m₊]₊² + (1 − y)·[m − d]₊²: genuine pairs are pulled together, impostors pushed beyond the margin.

    y_true `(batch,)` 1 = same; y_pred `(batch, 1)` distances. With the defaults it is TensorFlow Addons'
    `ContrastiveLoss`; unsquared, the form of pytorch-metric-learning.

    Hadsell, Chopra, LeCun, *Dimensionality Reduction by Learning an Invariant Mapping*, CVPR 2006,
    https://doi.org/10.1109/CVPR.2006.100

    Args:
        margin: m > 0, in units of the distance. Refused when training starts where the model's distances cannot reach
            it.
        positive_margin: m₊ in [0, margin].
        squared: whether the hinges are squared (default) or linear.
        **kwargs: `positive_weight`, `negative_weight`, `similar_label`, `reduction`, `name`, `dtype` as in `PairLoss`.

    Example:

    >>> import numpy as np
    >>> loss = ContrastiveLoss(margin=1.0, reduction="none")
    >>> [round(float(value), 2) for value in loss(np.array([1, 0, 0]), np.array([[0.5], [0.8], [1.2]]))]
    [0.25, 0.04, 0.0]
    """

    def __init__(self, margin=1.0, positive_margin=0.0, squared=True, **kwargs):
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, open_low=True, open_high=True)
        self.positive_margin = check_number("positive_margin", positive_margin, low=0, high=self.margin)
        self.squared = bool(squared)

    def per_pair(self, same, prediction):
        return contrastive(same, prediction, self.margin, self.positive_margin, self.squared)

    def check_reach(self, low, high):
        refuse_margin(self, "margin", self.margin, high, low, high)

    def get_config(self):
        return {
            **super().get_config(),
            "margin": self.margin,
            "positive_margin": self.positive_margin,
            "squared": self.squared,
        }


@export
class MarginLoss(PairLoss):
    """y·[d − β + m]₊ + (1 − y)·[β − d + m]₊: genuine pairs come within β − m, impostor pairs go beyond β + m.

    y_true `(batch,)` 1 = same; y_pred `(batch, 1)` distances. β is a boundary between the two kinds, so genuine pairs
    need not fall onto one point. The paper samples the pairs by distance, and may learn β; here β is fixed.

    Wu, Manmatha, Smola, Krähenbühl, *Sampling Matters in Deep Embedding Learning*, ICCV 2017,
    https://arxiv.org/abs/1706.07567

    Args:
        margin: m > 0, in units of the distance. Refused when training starts where the model's distances cannot reach
            β − m or β + m.
        beta: β > 0, in units of the distance.
        **kwargs: `positive_weight`, `negative_weight`, `similar_label`, `reduction`, `name`, `dtype` as in `PairLoss`.

    Example:

    >>> import numpy as np
    >>> loss = MarginLoss(margin=0.2, beta=1.2, reduction="none")
    >>> [round(float(value), 2) for value in loss(np.array([1, 1, 0]), np.array([[0.5], [1.3], [0.8]]))]
    [0.0, 0.3, 0.6]
    """

    margin_is_gap = True

    def __init__(self, margin=0.2, beta=1.2, **kwargs):
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, open_low=True, open_high=True)
        self.beta = check_number("beta", beta, low=0, open_low=True, open_high=True)

    def per_pair(self, same, prediction):
        return margin_loss(same, prediction, self.margin, self.beta)

    def check_reach(self, low, high):
        if not low <= self.beta <= high:
            raise ValueError(
                f"`beta` of {type(self).__name__} must be inside the model's distances [{low:g}, {high:g}]; got "
                f"{self.beta:g}"
            )
        refuse_margin(self, "margin", self.margin, min(high - self.beta, self.beta - low), low, high)

    def get_config(self):
        return {**super().get_config(), "margin": self.margin, "beta": self.beta}


@export
class OnlineContrastiveLoss(PairLoss):
    """y·d² + (1 − y)·[m − d]₊² of the batch's hard pairs, 0 of the others.

    y_true `(batch,)` 1 = same; y_pred `(batch, 1)` distances. A genuine pair is hard if it is farther than the closest
    impostor pair of the batch, an impostor pair if it is closer than the farthest genuine pair; in a batch of one kind
    alone, if it is on the wrong side of the kind's mean distance. Which pairs are hard is not differentiated.

    The definition is that of sentence-transformers' `OnlineContrastiveLoss`, which sums: ``reduction="sum"`` is its
    value, and the default is the mean over all rows, easy ones as 0, so that it does not grow with the batch. It also
    takes its own kind's mean where the other kind has a single pair; here that pair decides. Its distance is
    ``SiameseWrapper(…, distance="cosine")``.

    Args:
        margin: m > 0, in units of the distance. Refused when training starts where the model's distances cannot reach
            it.
        **kwargs: `positive_weight`, `negative_weight`, `similar_label`, `reduction`, `name`, `dtype` as in `PairLoss`.

    Example:

    >>> import numpy as np
    >>> loss = OnlineContrastiveLoss(margin=0.5, reduction="none")
    >>> [round(float(value), 2) for value in loss(np.array([1, 1, 0, 0]), np.array([[0.1], [0.6], [0.3], [0.7]]))]
    [0.0, 0.36, 0.04, 0.0]
    """

    def __init__(self, margin=0.5, **kwargs):
        super().__init__(**kwargs)
        self.margin = check_number("margin", margin, low=0, open_low=True, open_high=True)

    def per_pair(self, same, prediction):
        return online_contrastive(same, prediction, self.margin)

    def check_reach(self, low, high):
        refuse_margin(self, "margin", self.margin, high, low, high)

    def get_config(self):
        return {**super().get_config(), "margin": self.margin}


@export
class WeightedBinaryCrossentropy(PairLoss):
    """Σ w_y·BCE / Σ w_y: cross-entropy of p(same) that an unequal share of genuine pairs does not tilt.

    y_true `(batch,)` 1 = same; y_pred `(batch, 1)` probabilities of being the same, as
    ``SiameseWrapper(head="logistic")`` puts out, or logits. The weighted mean is taken within each batch; "balanced"
    gives both classes half of the weight, the values of scikit-learn's ``compute_sample_weight("balanced", y)``.

    Args:
        class_weight: None (default), "balanced", or ``{0: w0, 1: w1}`` by the value of y_true, each ≥ 0.
        from_logits: whether y_pred holds logits.
        **kwargs: `positive_weight`, `negative_weight`, `similar_label`, `reduction`, `name`, `dtype` as in `PairLoss`.

    Example:

    >>> import numpy as np
    >>> loss = WeightedBinaryCrossentropy("balanced")
    >>> round(float(loss(np.array([1, 0, 0, 0]), np.array([[0.9], [0.2], [0.2], [0.2]]))), 4)
    0.1643
    """

    expects = "score"

    def __init__(self, class_weight=None, from_logits=False, **kwargs):
        super().__init__(**kwargs)
        self.class_weight = check_class_weight(class_weight)
        self.from_logits = bool(from_logits)

    @property
    def expected_range(self):
        return (-math.inf, math.inf) if self.from_logits else super().expected_range

    def per_pair(self, same, prediction):
        weight = self.class_weight
        if isinstance(weight, dict):
            weight = (weight[1 - self.similar_label], weight[self.similar_label])
        return weighted_binary_crossentropy(same, prediction, weight, self.from_logits)

    def check_reach(self, low, high):
        if self.from_logits and (low, high) == (0.0, 1.0):
            raise ValueError(
                f"{type(self).__name__} has from_logits=True, and the model puts out probabilities in [0, 1]: "
                "use from_logits=False"
            )

    def get_config(self):
        weight = self.class_weight
        # JSON keys are strings: a saved dict comes back as {"0": …, "1": …}, which `check_class_weight` reads.
        weight = {str(label): value for label, value in weight.items()} if isinstance(weight, dict) else weight
        return {**super().get_config(), "class_weight": weight, "from_logits": self.from_logits}


def check_class_weight(class_weight):
    if class_weight is None or isinstance(class_weight, str):
        return check_choice("class_weight", class_weight, (None, "balanced"))
    if not isinstance(class_weight, dict) or {str(label) for label in class_weight} != {"0", "1"}:
        raise ValueError(f'`class_weight` must be None, "balanced" or {{0: w0, 1: w1}}; got {class_weight!r}')
    return {
        int(label): check_number(f"class_weight[{label}]", weight, low=0, open_high=True)
        for label, weight in class_weight.items()
    }
