"""What the output of a siamese model means: does it grow with similarity, and which label means the same identity?

Three witnesses are asked. *The loss*: towards which output does it pull a pair of each label? *The comparator*: are the
outputs of equal embeddings the lowest (a distance) or the highest (a similarity) of all? *The data*: pairs of which
label are closer in the raw inputs? If they contradict each other, `Direction.contradiction` says how.

Contract: functions of arrays and of a loss `(y, output) → value`; no model. Imports NumPy and `verification`.

    pull(loss, outputs, (0, 1))             # +1: label 1 pulls the output up; −1: down; 0: unknown
    equal_end(equal, different)             # -1: equal embeddings give the lowest outputs; +1: the highest; 0: neither
    closer_label(left, right, labels)       # the label whose pairs are closer in the inputs, or None
"""

import dataclasses

import numpy as np

from keras_siamese.verification import auc

GRID = 9  # outputs at which the loss is evaluated
MONOTONE = 0.9  # rank correlation from which a curve counts as monotone
CLEAR = 4.0  # standard errors by which an AUC must differ from .5


@dataclasses.dataclass(frozen=True)
class Direction:
    """What a model's output means.

    Attributes:
        up: whether the output grows with similarity; the score is the output if so, and −output if not.
        similar_label: the label that means the same identity.
        reasons: how this was found, one sentence for each witness.
        contradiction: what contradicts the loss, in one sentence, or None.
        wanted: the end to which the loss pulls pairs that are the same: 1, −1, or 0 if not known.
        end: the end at which equal embeddings are: 1, −1, or 0 for neither.
    """

    up: bool
    similar_label: object
    reasons: tuple = ()
    contradiction: str | None = None
    wanted: int = 0
    end: int = 0

    def __str__(self):
        grows = "grows" if self.up else "falls"
        return f"The output {grows} with similarity; label {self.similar_label:g} means same. {' '.join(self.reasons)}"


def pull(loss, outputs, labels):
    """The direction in which the loss pulls the output for the higher label, against the lower one: 1, −1 or 0.

    The difference L(output | high label) − L(output | low label) is monotone for all usual losses: it falls where the
    high label asks for larger outputs.

    Args:
        loss: a function `(label, output) → float` of two numbers.
        outputs: some outputs of the model `(n,)`, which give the range.
        labels: `(low, high)`.
    """
    outputs = outputs[np.isfinite(outputs)]
    low, high = (np.quantile(outputs, [0.02, 0.98])) if len(outputs) else (0.0, 0.0)
    if high - low <= 1e-6 * max(1.0, abs(high)):  # a constant output: look around it
        low, high = (0.05, 0.95) if 0 <= low <= 1 else (low - 0.5 * abs(low), low + 0.5 * abs(low))
    grid = np.linspace(low, high, GRID)
    difference = np.array([loss(labels[1], value) - loss(labels[0], value) for value in grid])
    if not np.isfinite(difference).all() or np.ptp(difference) == 0:
        return 0
    steps = np.diff(difference)
    if (steps >= 0).all() or (steps <= 0).all():  # it may be flat where the loss cuts outputs off
        return int(-np.sign(steps.sum()))
    from scipy.stats import spearmanr  # takes a while to import

    trend = spearmanr(grid, difference).statistic
    return 0 if abs(trend) < MONOTONE else int(-np.sign(trend))


def equal_end(equal, different):
    """Whether equal embeddings give the lowest outputs (−1) or the highest (1) of all, or neither (0).

    Args:
        equal: outputs of pairs of equal embeddings `(n,)`.
        different: outputs of pairs of different items `(m,)`.
    """
    spread = np.ptp(different)
    if not np.isfinite(spread) or spread == 0 or np.ptp(equal) > 0.1 * spread:
        return 0
    if equal.max() <= different.min() + 1e-3 * spread:
        return -1
    return 1 if equal.min() >= different.max() - 1e-3 * spread else 0


def closer_label(left, right, labels):
    """The label `(value, AUC)` whose pairs are closer in the raw inputs than the other's; `(None, AUC)` if unclear.

    Args:
        left, right: lists of arrays `(n, …)`, the inputs of each side. Whole numbers count as codes: equal or not.
        labels: `(n,)`, of two values.
    """
    low, high = np.unique(labels)
    ranks = []
    for one, other in zip(left, right, strict=True):
        one, other = (np.asarray(side).reshape(len(labels), -1) for side in (one, other))
        is_measured = one.dtype.kind == "f"
        gap = ((one.astype("float64") - other) ** 2).sum(1) if is_measured else (one != other).mean(1)
        ranks.append(np.argsort(np.argsort(gap, kind="stable"), kind="stable"))
    area = auc(labels == high, -np.mean(ranks, axis=0))
    counts = np.count_nonzero(labels == low), np.count_nonzero(labels == high)
    error = np.sqrt((1 / counts[0] + 1 / counts[1]) / 12)
    if abs(area - 0.5) < CLEAR * error:
        return None, area
    return (high if area > 0.5 else low), area


def direction_of(
    labels, *, pulled=0, end=0, is_learned=False, closer=(None, float("nan")), similar_label=None, up=None
):
    """Combine what the witnesses say.

    Args:
        labels: `(low, high)`, the two labels of pairs.
        pulled: see `pull`.
        end: see `equal_end`.
        is_learned: whether the comparator has weights, so that training can turn its direction.
        closer: see `closer_label`.
        similar_label, up: what the user says; it decides.
    """
    low, high = labels
    reasons, same = [], similar_label
    if pulled:
        reasons.append(f"The loss pulls the output of label {high:g} {'up' if pulled > 0 else 'down'}.")
    if end:
        reasons.append(f"Equal embeddings give the {'highest' if end > 0 else 'lowest'} output.")
    if closer[0] is not None:
        reasons.append(
            f"Pairs with label {closer[0]:g} are closer in the inputs (AUC {max(closer[1], 1 - closer[1]):.2f})."
        )
    if same is None and closer[0] is not None:
        same = closer[0]
    elif same is None and pulled and end and not is_learned:
        same = high if pulled == end else low
    elif same is None:
        same = high
        reasons.append(f"Label {high:g} is assumed to mean same; `similar_label=` overrides this.")
    wanted = 0 if not pulled else pulled if same == high else -pulled  # the loss: where same pairs shall go
    if up is None:
        sign = (end or wanted) if not is_learned else (wanted or end)
        if not sign:
            reasons.append("Neither the loss nor the comparator tells the direction; it is assumed to grow.")
        up = sign >= 0
    contradiction = None
    if wanted and end and wanted != end:
        place = {1: "highest", -1: "lowest"}[end]
        contradiction = (
            f"The loss pulls pairs that are the same away from the {place} output, which equal embeddings give."
        )
    return Direction(bool(up), same, tuple(reasons), contradiction, wanted, end)
