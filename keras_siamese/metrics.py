"""Keras metrics for verification, computed batch by batch with a few kilobytes of state.

Contract: y_true are pair labels, y_pred is the model's output, a distance or a score; both are `(batch,)` or
`(batch, 1)`. Outputs are counted in bins, so the figures are those of `verification` on outputs rounded to a bin. They
work in `compile(metrics=…)` on every backend. `callbacks` uses the exact functions of `verification` instead.

    siamese.compile("adam", loss=ContrastiveLoss(), metrics=[EqualErrorRate(), TARAtFAR(0.01)])
    siamese.evaluate(PairSequence(*valid, frozen=True))

During training the weights change from batch to batch, so these figures show only a trend; in `evaluate` they are
results. `VerificationMonitor` measures at the end of an epoch on fixed pairs, with thresholds chosen on other pairs.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import keras
from keras import ops

from keras_siamese._checks import check_choice, check_integer, check_number
from keras_siamese._export import export
from keras_siamese._replicas import gathered
from keras_siamese._types import Tensor
from keras_siamese.ops import at_least_float32, named_tensor, pair_rows, row_vector

__all__ = ["BestVerificationAccuracy", "EqualErrorRate", "TARAtFAR"]
__all__ += ["VerificationAUC", "VerificationAccuracy", "VerificationMetric"]


class VerificationMetric(keras.metrics.Metric):
    """Base class of the metrics, whose states can be merged.

    y_true are pair labels `(batch,)` or `(batch, 1)`, 1 = same; y_pred is `(batch,)` or `(batch, 1)`. The result is NaN
    if a label is neither 0 nor 1 or an output is not finite.

    Args:
        output: "distance" (smaller = more similar) or "score" (larger = more similar, such as a head's output).
        similar_label: the label that means the same identity, 1 or 0.
        name, dtype: as in `keras.metrics.Metric`.
    """

    _direction = "up"  # Keras's callbacks look here if they are not given a `mode`

    def __init__(
        self,
        output: Literal["distance", "score"] = "distance",
        similar_label: int = 1,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(name=name, dtype=dtype)
        self.output = check_choice("output", output, ("distance", "score"))
        self.similar_label = check_choice("similar_label", similar_label, (0, 1))

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor = None) -> None:
        labels, output = map(at_least_float32, pair_rows(y_true, y_pred))
        weight = ops.ones_like(output)
        if sample_weight is not None:
            weight = weight * pair_weights(sample_weight, output)
        sound = ops.isfinite(output) & ((labels == 0) | (labels == 1))
        weight = ops.where(sound, weight, float("nan"))
        output = ops.where(sound, output, 0.0)
        same = ops.cast(labels == self.similar_label, output.dtype)
        self.add(-output if self.output == "distance" else output, weight * same, weight * (1.0 - same))

    def add(self, score: Tensor, genuine: Tensor, impostor: Tensor) -> None:
        """Add a batch: scores `(batch,)`, larger = more similar, and each row's weight in the two classes."""
        raise NotImplementedError

    def merge_state(self, metrics: Iterable[keras.metrics.Metric]) -> None:
        """Add the states of other metrics of the same class and options, for example from other processes.

        Raises:
            ValueError: if one of them has another class or other options.
        """
        for metric in self.alike(metrics):
            for own, other in zip(self.variables, metric.variables, strict=True):
                own.assign_add(other)

    def alike(self, metrics: Iterable[keras.metrics.Metric]) -> list[keras.metrics.Metric]:
        """Returns `metrics` as a list, if all have this metric's class and options."""
        metrics = list(metrics)
        for metric in metrics:
            if type(metric) is not type(self) or plain(metric) != plain(self):
                wanted = f"of class {type(self).__name__} with the options {plain(self)}"
                found = f"with {plain(metric)}" if isinstance(metric, VerificationMetric) else f"{metric!r}"
                raise ValueError(f"`metrics` must be {wanted}; got a {type(metric).__name__} {found}")
        return metrics

    def get_config(self) -> dict[str, Any]:
        """The constructor's arguments, from the attributes with the same names."""
        options = [name for name in inspect.signature(type(self)).parameters if name not in ("name", "dtype")]
        return {**super().get_config(), **{name: getattr(self, name) for name in options if hasattr(self, name)}}


def pair_weights(sample_weight, output):
    """`sample_weight`, `(batch,)`, `(batch, 1)` or a number, as a tensor that multiplies `output` `(batch,)`."""
    weight = ops.cast(named_tensor("sample_weight", sample_weight), output.dtype)
    if len(weight.shape) == 0:
        return weight
    weight = row_vector("sample_weight", weight)
    if None not in (weight.shape[0], output.shape[0]) and weight.shape[0] not in (1, output.shape[0]):
        found = f"{tuple(weight.shape)} for {output.shape[0]} pairs"
        raise ValueError(f"`sample_weight` must have one weight for each pair; got {found}")
    return weight


def plain(metric):
    """A metric's options without its name."""
    return {key: value for key, value in metric.get_config().items() if key != "name"}


@export
class VerificationAccuracy(VerificationMetric):
    """Share of correct decisions at a threshold that was chosen on other pairs.

    y_true are pair labels `(batch,)` or `(batch, 1)`; y_pred is `(batch, 1)`. The result is exact. A threshold of 0.5
    suits hardly any distance: take one from `verification.threshold_at_far` or `Verifier.calibrate` (and change its
    sign for distances, because those thresholds are for scores, −distance).

    Args:
        threshold: in units of y_pred. A pair is accepted if its distance is ≤ the threshold, or its score ≥ it.
        output, similar_label, name, dtype: as in `VerificationMetric`.

    >>> metric = VerificationAccuracy(threshold=0.7)
    >>> metric.update_state([1, 1, 0, 0], [[0.2], [0.9], [1.1], [1.4]])
    >>> float(metric.result())
    0.75
    """

    def __init__(
        self,
        threshold: float,
        output: Literal["distance", "score"] = "distance",
        similar_label: int = 1,
        name: str = "verification_accuracy",
        dtype: Any = None,
    ) -> None:
        super().__init__(output, similar_label, name, dtype)
        self.threshold = check_number("threshold", threshold)
        self.right = self.add_variable(shape=(), initializer="zeros", name="right")
        self.total = self.add_variable(shape=(), initializer="zeros", name="total")

    def add(self, score: Tensor, genuine: Tensor, impostor: Tensor) -> None:
        accepted = score >= (-self.threshold if self.output == "distance" else self.threshold)
        self.right.assign_add(ops.cast(ops.sum(ops.where(accepted, genuine, impostor)), self.dtype))
        self.total.assign_add(ops.cast(ops.sum(genuine) + ops.sum(impostor), self.dtype))

    def result(self) -> Tensor:
        right, total = ops.convert_to_tensor(self.right), ops.convert_to_tensor(self.total)
        return ops.where(total == 0, float("nan"), right / ops.where(total == 0, 1.0, total))


class BinnedMetric(VerificationMetric):
    """Base class of the metrics over all thresholds. Its state is a histogram of scores `(bins,)` for each class.

    An output x becomes z = (x − centre) / scale. The bins divide z / (1 + |z|) evenly from −1 to 1, so no output is
    clipped. At x, a bin is 2·scale·(1 + |z|)²/bins wide. The centre is the median of the outputs of the first batch,
    and the scale is the geometric mean of their distances from it. If a later batch spreads more than four times as
    wide, or lies that far away, a new centre and scale are chosen, and the counts of each old bin move to the new bin
    of their mean. The same is done if a batch spreads less than a fourth as wide and has as many outputs as all batches
    before it, so that a first batch of outliers does not leave wide bins. So the figures do not depend on the unit or
    the zero of the outputs.

    All pairs in a bin count as ties. This causes a small error. Let g and i be the shares of the genuine and of the
    impostor pairs that are in one bin: the error of the AUC is at most ½ Σ g·i over the bins, and that of the other
    metrics at most the largest g + i. The result is NaN until both classes have been seen. In float32, counts are exact
    up to 2²⁴ pairs in a bin.

    Args:
        bins: number of bins, at least 2.
        output, similar_label, name, dtype: as in `VerificationMetric`.
    """

    def __init__(
        self,
        bins: int = 16_384,
        output: Literal["distance", "score"] = "distance",
        similar_label: int = 1,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(output, similar_label, name, dtype)
        self.bins = check_integer("bins", bins, low=2)
        # Weights of genuine pairs, weights of impostor pairs, and sums of weight · z.
        self.counts = self.add_variable(shape=(self.bins, 3), initializer="zeros", name="counts")
        # All replicas of a strategy choose the same bins, so the mean over them is each one's own.
        self.centre = self.add_variable((), "zeros", aggregation="mean", name="centre")
        self.scale = self.add_variable((), "zeros", aggregation="mean", name="scale")
        self.seen = self.add_variable((), "zeros", aggregation="mean", name="seen")  # outputs so far

    def add(self, score: Tensor, genuine: Tensor, impostor: Tensor) -> None:
        if score.shape[0] == 0:
            return
        score = ops.cast(score, self.dtype)
        (everywhere,), _ = gathered(score)  # all replicas choose the same bins
        self.choose_bins(*centre_and_scale(everywhere), ops.cast(ops.shape(everywhere)[0], self.dtype))
        _, centre, scale, _ = tensors(self)
        self.counts.assign_add(self.histogram(score - centre, scale, genuine, impostor))

    def histogram(self, distance: Tensor, scale: Tensor, genuine: Tensor, impostor: Tensor) -> Tensor:
        """The `counts` `(bins, 3)` of scores at these distances `(n,)` from the centre, with these weights `(n,)`."""
        z = distance / ops.where(scale > 0, scale, 1.0)  # a scale of 0 means that all scores are equal to the centre
        y = 0.5 * (1.0 + z / (1.0 + ops.abs(z)))
        # The centre, z = 0, is inside of a bin and not between two.
        index = ops.clip(ops.cast(ops.floor(y * (self.bins - 1) + 0.25), "int32"), 0, self.bins - 1)
        parts = ops.stack([genuine, impostor, (genuine + impostor) * ops.cast(z, genuine.dtype)], axis=1)
        return ops.cast(ops.segment_sum(parts, index, num_segments=self.bins), self.dtype)

    def moved(self, state: Sequence[Tensor], centre: Tensor, scale: Tensor) -> Tensor:
        """The `counts` of a state (counts, centre, scale, …) in other bins; each bin is moved to its mean."""
        genuine, impostor, sums = ops.unstack(state[0], axis=1)
        weight = genuine + impostor
        z = ops.where(weight > 0, sums / ops.where(weight > 0, weight, 1.0), 0.0)  # a weight of NaN stays NaN
        return self.histogram((state[1] - centre) + state[2] * z, scale, genuine, impostor)

    def choose_bins(self, centre: Tensor, scale: Tensor, count: Tensor) -> None:
        """Choose bins for `count` scores with this centre and scale, if the present ones do not suit them."""
        present = tensors(self)
        is_empty = ops.sum(present[0][:, :2]) == 0
        is_wide = (scale > 0) & (4.0 * scale < present[2]) & (count >= present[3])
        reach = ops.maximum(scale, ops.abs(centre - present[1]) / 4.0)
        scale = ops.where(is_empty | is_wide, scale, reach)
        new = is_empty | is_wide | (scale > 4.0 * present[2])
        seen = present[3] + count
        state = when(
            new, lambda: [self.moved(present, centre, scale), centre, scale, seen], lambda: [*present[:3], seen]
        )
        for held, value in zip(self.variables, state, strict=True):
            held.assign(value)

    def merge_state(self, metrics: Iterable[keras.metrics.Metric]) -> None:
        """Add the states of other metrics of the same class and options, for example from other processes.

        Raises:
            ValueError: if one of them has another class or other options.
        """
        for state in map(tensors, self.alike(metrics)):
            if float(ops.sum(state[0][:, :2])) != 0:
                self.choose_bins(*state[1:])
                self.counts.assign_add(self.moved(state, *tensors(self)[1:3]))

    def result(self) -> Tensor:
        counts = tensors(self)[0]
        genuines, impostors = accepted(counts[:, 0]), accepted(counts[:, 1])
        smaller = ops.minimum(genuines[-1], impostors[-1])
        both = smaller > 0  # False also if one of them is NaN
        found = self.figure(*(counts / ops.where(both, counts[-1], 1.0) for counts in (genuines, impostors)))
        return ops.where(both, found, float("nan"))

    def figure(self, tar: Tensor, fmr: Tensor) -> Tensor:
        """The metric's value from TAR and FMR `(bins + 1,)`, both rising from 0 to 1."""
        raise NotImplementedError


def tensors(metric):
    """The state of a metric. A variable itself is no operand in a stateless scope on TensorFlow."""
    return [ops.convert_to_tensor(variable.value) for variable in metric.variables]


def when(condition, then, otherwise):
    """`ops.cond`; decided at once where the condition has a value, because JAX then compiles each `cond` anew."""
    try:
        known = bool(condition)
    except TypeError:  # the condition of a traced function
        return ops.cond(condition, then, otherwise)
    return then() if known else otherwise()


def centre_and_scale(score):
    """The median of scores `(n,)`, n ≥ 1, and the geometric mean of their distances from it; 0 if all are equal.

    Both hardly depend on single scores that are far away, or nearly equal.
    """
    score = ops.stop_gradient(score)
    centre = ops.take(ops.sort(score), ops.shape(score)[0] // 2)
    apart = ops.abs(score - centre)
    other = apart > 0
    logs, count = ops.where(other, ops.log(ops.where(other, apart, 1.0)), 0.0), ops.sum(ops.cast(other, score.dtype))
    return centre, ops.where(count > 0, ops.exp(ops.sum(logs) / ops.maximum(count, 1.0)), 0.0)


def accepted(weights):
    """Sums of the weights `(bins,)` above each threshold, from the highest threshold to the lowest: `(bins + 1,)`."""
    falling = ops.flip(weights, axis=0)
    return ops.concatenate([ops.zeros_like(falling[:1]), ops.cumsum(falling)], axis=0)


@export
class EqualErrorRate(BinnedMetric):
    """Equal error rate: the false match rate where it equals the false non-match rate, interpolated.

    y_true are pair labels `(batch,)` or `(batch, 1)`; y_pred is `(batch, 1)`. This is `verification.eer` up to binning.

    Args:
        bins, output, similar_label, name, dtype: as in `BinnedMetric`.

    >>> metric = EqualErrorRate()
    >>> metric.update_state([1, 1, 0, 0], [[0.2], [0.9], [0.8], [1.4]])
    >>> float(metric.result())
    0.5
    """

    _direction = "down"

    def __init__(
        self,
        bins: int = 16_384,
        output: Literal["distance", "score"] = "distance",
        similar_label: int = 1,
        name: str = "eer",
        dtype: Any = None,
    ) -> None:
        super().__init__(bins, output, similar_label, name, dtype)

    def figure(self, tar: Tensor, fmr: Tensor) -> Tensor:
        excess = fmr + tar - 1.0
        # Rounding may make the last value, which is 0, slightly negative.
        after = ops.argmax(ops.cast(excess[1:] >= -1e-6, "int32")) + 1
        below, above = ops.take(excess, after - 1), ops.take(excess, after)
        step = below / ops.where(below == above, 1.0, below - above)
        low, high = ops.take(fmr, after - 1), ops.take(fmr, after)
        return low + step * (high - low)


@export
class VerificationAUC(BinnedMetric):
    """Area under the ROC curve: probability that a genuine pair scores above an impostor pair; ties count half.

    y_true are pair labels `(batch,)` or `(batch, 1)`; y_pred is `(batch, 1)`. This is `verification.auc` up to binning.

    Args:
        bins, output, similar_label, name, dtype: as in `BinnedMetric`.

    >>> metric = VerificationAUC(output="score")
    >>> metric.update_state([1, 0, 1, 0], [[0.9], [0.6], [0.6], [0.1]])
    >>> float(metric.result())
    0.875
    """

    def __init__(
        self,
        bins: int = 16_384,
        output: Literal["distance", "score"] = "distance",
        similar_label: int = 1,
        name: str = "verification_auc",
        dtype: Any = None,
    ) -> None:
        super().__init__(bins, output, similar_label, name, dtype)

    def figure(self, tar: Tensor, fmr: Tensor) -> Tensor:
        return ops.sum((fmr[1:] - fmr[:-1]) * (tar[1:] + tar[:-1])) / 2.0


@export
class TARAtFAR(BinnedMetric):
    """Largest true accept rate among the thresholds whose false match rate is at most `far`.

    y_true are pair labels `(batch,)` or `(batch, 1)`; y_pred is `(batch, 1)`. This is `verification.tar_at_far` up to
    binning, and never above it. It is reliable from 30/far impostor pairs on, see `verification.rule_of_30`.

    Args:
        far: false match rate in (0, 1).
        bins, output, similar_label, dtype: as in `BinnedMetric`.
        name: "tar@far=…" by default.

    >>> metric = TARAtFAR(far=0.4)
    >>> metric.update_state([1, 1, 1, 0, 0, 0], [[0.1], [0.3], [0.7], [0.2], [0.8], [0.9]])
    >>> round(float(metric.result()), 4)
    1.0
    """

    def __init__(
        self,
        far: float = 0.01,
        bins: int = 16_384,
        output: Literal["distance", "score"] = "distance",
        similar_label: int = 1,
        name: str | None = None,
        dtype: Any = None,
    ) -> None:
        self.far = check_number("far", far, low=0, high=1, open_low=True, open_high=True)
        super().__init__(bins, output, similar_label, f"tar@far={self.far:g}" if name is None else name, dtype)

    def figure(self, tar: Tensor, fmr: Tensor) -> Tensor:
        # The division may round a rate that equals `far` to slightly above it.
        return ops.max(ops.where(fmr <= self.far * (1.0 + 1e-6), tar, 0.0))


@export
class BestVerificationAccuracy(BinnedMetric):
    """Largest balanced accuracy over all thresholds: max ½ (TAR + 1 − FMR).

    y_true are pair labels `(batch,)` or `(batch, 1)`; y_pred is `(batch, 1)`. It is optimistic, because the threshold
    is chosen on the same pairs: compare it with `verification.best_accuracy_floor`. On as many genuine as impostor
    pairs it is `verification.best_accuracy` up to binning.

    Args:
        bins, output, similar_label, name, dtype: as in `BinnedMetric`.

    >>> metric = BestVerificationAccuracy()
    >>> metric.update_state([1, 1, 0, 0], [[0.2], [0.9], [0.8], [1.4]])
    >>> float(metric.result())
    0.75
    """

    def __init__(
        self,
        bins: int = 16_384,
        output: Literal["distance", "score"] = "distance",
        similar_label: int = 1,
        name: str = "best_verification_accuracy",
        dtype: Any = None,
    ) -> None:
        super().__init__(bins, output, similar_label, name, dtype)

    def figure(self, tar: Tensor, fmr: Tensor) -> Tensor:
        return ops.max(tar + 1.0 - fmr) / 2.0
