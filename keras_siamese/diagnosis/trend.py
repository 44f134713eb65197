"""The flag: does the training loss fall while held-out verification does not follow?

Contract: curves `(epochs,)`, one value per epoch, go in; the flagged epochs come out. The curves may be those of a live
fit, of Keras's `History` or of a CSV log. Whether an epoch is flagged does not depend on later epochs.

    flags = find_flags(loss, auc, eer, pairs=5000, auc_se=auc_se, eer_se=eer_se)
    flags[0].epoch, flags[0].reason                # the first flagged epoch and why; no flags if the run never diverged
    why_no_flags(loss, auc, eer, pairs=5000)       # "only 7 measured epochs …" if no flag was possible
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise, permutations
from typing import Any, NamedTuple

import numpy as np

from keras_siamese._checks import check_integer, check_number, check_reals
from keras_siamese._types import ArrayLike
from keras_siamese.diagnosis import limits

EXACT = 7  # the longest window for which all permutations are counted (5,040)


@dataclass(frozen=True)
class Flag:
    """One flagged epoch, the last of two consecutive windows in which the loss fell and verification did not follow.

    Attributes:
        epoch: index of the epoch, from 0.
        reason: "no better than chance", "below target" or "worse than its best".
        loss_drop: relative fall of the loss over the window, > 0.
        loss_p, auc_p, eer_p: one-sided Mann–Kendall p-values of a falling loss, a rising AUC and a falling EER.
        auc, eer: their values at the epoch; best_auc, best_eer: the best values up to the epoch.
        auc_null: the 99th percentile of AUC without any information: ½ plus 2.326 standard errors.
        step: number of training steps, if the run was measured within its epochs; then `epoch` counts these
            measurements. None otherwise.
    """

    epoch: int
    reason: str
    loss_drop: float
    loss_p: float
    auc_p: float
    eer_p: float
    auc: float
    eer: float
    best_auc: float
    best_eer: float
    auc_null: float
    step: int | None = None

    @property
    def place(self) -> str:
        """Where the flag is, in words."""
        return f"epoch {self.epoch + 1}" if self.step is None else f"step {self.step:,}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def mann_kendall(values, direction):
    """One-sided p-value of a trend of `values` `(n,)` in `direction`, "falling" or "rising".

    p is the share of the n! orders of the values whose S = Σ_{i<j} sign(x_j − x_i) is at least as extreme; it is exact
    with ties too, and 1 if all values are equal. For more than 7 values, SciPy's `kendalltau` is used: exact up to 33
    values without ties, and a normal approximation with ties.

    Mann, *Nonparametric tests against trend*, Econometrica 1945, https://doi.org/10.2307/1907187

    >>> round(mann_kendall([5, 4, 3, 2, 1], "falling"), 4), round(mann_kendall([5, 4, 3, 1, 2], "falling"), 4)
    (0.0083, 0.0417)
    """
    values = np.asarray(values, float) * {"falling": -1, "rising": 1}[direction]
    if len(values) > EXACT:
        from scipy.stats import kendalltau

        _, p = kendalltau(np.arange(len(values)), values, alternative="greater")
        return float(np.nan_to_num(p, nan=1.0))  # NaN if all values are equal
    signs = np.sign(values[None, :] - values[:, None])
    earlier, later = np.triu_indices(len(values), 1)
    orders = every_order(len(values))
    concordance = signs[orders[:, earlier], orders[:, later]].sum(axis=1)
    return float(np.mean(concordance >= concordance[0]))


@lru_cache
def every_order(n):
    """The permutations of 0 … n − 1 as rows `(n!, n)`, the identity first."""
    return np.array(list(permutations(range(n))))


def warmup_of(epochs):
    """The number of epochs before the first window: 10 % of `epochs`, rounded down."""
    return int(limits.WARMUP_SHARE * epochs)


def find_flags(
    loss: ArrayLike,
    auc: ArrayLike,
    eer: ArrayLike,
    *,
    pairs: int,
    auc_se: ArrayLike | None = None,
    eer_se: ArrayLike | None = None,
    target_eer: float | None = None,
    epochs: int | None = None,
    window: int | None = None,
    since: int = 0,
) -> list[Flag]:
    """Finds the epochs at which a run diverged.

    A measured epoch is flagged if the window that ends at it and the window that ends one measured epoch earlier both
    start after the warm-up of 10 % of `epochs`, and if in both windows

    (a) the loss falls: Mann–Kendall p < .05, and by at least 5 %; and
    (b) AUC does not rise and EER does not fall (p ≥ .2), and at all epochs of the window AUC is below the 99th
        percentile of its null, or EER is above the target, or AUC or EER is worse than its best value so far by more
        than 2 standard errors. (A single epoch below a lucky best value is normal in healthy training.)

    Nothing is flagged if EER < .02, if the loss is at most a thousandth of its largest value, or below 100 pairs.

    Args:
        loss: `(n,)` training loss per epoch, from epoch 0; NaN for an epoch that is not known.
        auc, eer: `(n,)` held-out verification in [0, 1]; NaN where not measured. Windows skip such epochs.
        pairs: number of held-out comparisons.
        auc_se, eer_se: standard errors, scalar or `(n,)`. None or NaN stands for the standard error of independent
            pairs, half of them genuine, times 3.6: shared identities widen it by at most that. A value below the
            standard error of independent pairs is replaced by it.
        target_eer: EER that the user wants, in (0, 1).
        epochs: planned number of epochs, which sets the warm-up; by default n.
        window: measured epochs in a window, ≥ 4, which is the default: no trend of three epochs has p < .05.
        since: index of the first epoch that may be flagged. In a long run, looking at all of them in each epoch would
            take longer and longer.

    Returns:
        A list of `Flag` in the order of epochs; empty if the run did not diverge.
    """
    curves = check_curves(loss, auc, eer, pairs, auc_se, eer_se, target_eer)
    if pairs < limits.MIN_PAIRS:
        return []
    least = int(limits.WINDOW)
    window = least if window is None else check_integer("window", window, low=least)
    epochs = len(curves.loss) if epochs is None else check_integer("epochs", epochs, low=0)
    measured = measured_epochs(curves, warmup_of(epochs))
    before = int(np.searchsorted(measured, check_integer("since", since, low=0)))  # a flag needs the window before, too
    first = max(window, before)
    windows = [examine_window(curves, measured[end - window : end]) for end in range(first, len(measured) + 1)]
    return [now for before, now in pairwise(windows) if before is not None and now is not None]


def has_recovered(flags, auc, eer, *, pairs, auc_se=None, eer_se=None):
    """Whether the last AUC and EER both beat the best ones at the last of the `flags` by more than 2 standard errors.

    A slow starter is flagged until its embeddings find their scale, and then learns. For the others, see `find_flags`.
    """
    curves = check_curves(auc, auc, eer, pairs, auc_se, eer_se)
    measured = measured_epochs(curves)
    if not flags or not measured.size:
        return False
    last, flag = measured[-1], flags[-1]
    gained_auc = (curves.auc[last] - flag.best_auc) / curves.auc_se[last]
    gained_eer = (flag.best_eer - curves.eer[last]) / curves.eer_se[last]
    return bool(min(gained_auc, gained_eer) > limits.ERRORS_WORSE)


def verifies_badly(eer, flags, recovered, target_eer=None):
    """Whether a held-out `eer` wants explaining: above the target (or .25), or of a flagged run not recovered."""
    wanted = limits.BAD_EER if target_eer is None else target_eer
    diverged = bool(flags) and not recovered
    return bool(eer >= limits.GOOD_EER and (diverged or eer > wanted))


def why_no_flags(loss, auc, eer, *, pairs, epochs=None):
    """The reason why `find_flags` cannot flag any epoch of a run, in words; None if it can."""
    if pairs < limits.MIN_PAIRS:
        return f"only {pairs} held-out pairs, but at least {limits.MIN_PAIRS:.0f} are needed"
    curves = check_curves(loss, auc, eer, pairs)
    warmup = warmup_of(len(curves.loss) if epochs is None else epochs)
    measured = len(measured_epochs(curves, warmup))
    window = int(limits.WINDOW)
    if measured > window:
        return None
    return f"only {measured} measured epochs after a warm-up of {warmup}, but at least {window + 1} are needed"


class Curves(NamedTuple):
    """The curves of one run, each `(n,)`, and the user's target."""

    loss: np.ndarray
    auc: np.ndarray
    eer: np.ndarray
    auc_se: np.ndarray
    eer_se: np.ndarray
    target_eer: float | None


def check_curves(loss, auc, eer, pairs, auc_se=None, eer_se=None, target_eer=None):
    """`Curves` of the arguments of `find_flags`, which are checked."""
    given = {"loss": loss, "auc": auc, "eer": eer}
    loss, auc, eer = (check_reals(name, curve).astype(float) for name, curve in given.items())
    if not loss.shape == auc.shape == eer.shape or loss.ndim != 1:
        raise ValueError(
            f"`loss`, `auc` and `eer` must be curves of one length; got shapes {loss.shape}, {auc.shape}, {eer.shape}"
        )
    for name, curve in (("auc", auc), ("eer", eer)):
        outside = curve[(curve < 0) | (curve > 1 + 1e-6)]  # NaN is an epoch without a measurement
        if outside.size:
            raise ValueError(f"`{name}` must be in [0, 1], or NaN where not measured; got {outside[0]:g}")
    pairs = check_integer("pairs", pairs, low=0)
    if target_eer is not None:
        check_number("target_eer", target_eer, low=0, high=1, open_low=True, open_high=True)
    errors = [standard_errors("auc_se", auc, auc_se, pairs), standard_errors("eer_se", eer, eer_se, pairs)]
    return Curves(loss, auc, eer, *errors, target_eer)


def standard_errors(name, figure, errors, pairs):
    """Standard errors `(n,)` of `figure` `(n,)`: those given or, if NaN, those of independent pairs times 3.6."""
    given = np.full(figure.shape, np.nan) if errors is None else check_reals(name, errors).astype(float)
    if given.shape not in ((), figure.shape):
        raise ValueError(f"`{name}` must be a number or a curve of shape {figure.shape}; got shape {given.shape}")
    # On n independent pairs, half genuine, an AUC of ½ has √(1/3n), and √(f(1 − f) / 0.75n) is close for other AUCs.
    # This is a lower bound: a collapsed encoder gives all pairs one score, so a bootstrap finds no error at all.
    independent = np.sqrt(figure * (1 - figure) / (0.75 * max(pairs, 1)))
    return np.maximum(np.where(np.isnan(given), limits.SHARED * independent, given), np.maximum(independent, 1e-9))


def measured_epochs(curves, warmup=0):
    """Indices of the epochs after the first `warmup` at which loss, AUC and EER are known."""
    known = np.flatnonzero(np.isfinite(curves[:3]).all(axis=0))
    return known[known >= warmup]


def examine_window(curves, epochs):
    """A `Flag` if the window of the `epochs` `(window,)` meets both conditions, else None."""
    loss, auc, eer = curves.loss[epochs], curves.auc[epochs], curves.eer[epochs]
    so_far = slice(epochs[-1] + 1)
    falls_from = abs(loss[0])
    if falls_from <= limits.LOSS_FLOOR * np.nanmax(np.abs(curves.loss[so_far])) or eer[-1] < limits.GOOD_EER:
        return None
    drop = (loss[0] - loss[-1]) / falls_from
    if drop < limits.MIN_DROP or (loss_p := mann_kendall(loss, "falling")) >= limits.SIGNIFICANT:
        return None
    auc_p, eer_p = mann_kendall(auc, "rising"), mann_kendall(eer, "falling")
    if auc_p < limits.IMPROVING or eer_p < limits.IMPROVING:
        return None
    best_auc, best_eer = np.nanmax(curves.auc[so_far]), np.nanmin(curves.eer[so_far])
    auc_null = 0.5 + limits.ABOVE_NULL * curves.auc_se[epochs]
    lost_auc = (best_auc - auc) / curves.auc_se[epochs]
    lost_eer = (eer - best_eer) / curves.eer_se[epochs]
    if np.all(auc < auc_null):
        reason = "no better than chance"
    elif curves.target_eer is not None and np.all(eer > curves.target_eer):
        reason = "below target"
    elif np.all(lost_auc > limits.ERRORS_WORSE) or np.all(lost_eer > limits.ERRORS_WORSE):
        reason = "worse than its best"
    else:
        return None
    values = (drop, loss_p, auc_p, eer_p, auc[-1], eer[-1], best_auc, best_eer, auc_null[-1])
    return Flag(int(epochs[-1]), reason, *(float(value) for value in values))
