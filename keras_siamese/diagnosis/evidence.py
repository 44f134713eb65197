"""What a diagnosis is made from: curves of the run, scored held-out and training trials, the settings of the recipe.

Contract: `Evidence` holds facts and knows no cause. Figures that several causes read (intervals, the EER gap) are
computed once and kept. Imports `verification` and `scoring`.

    evidence = Evidence(history, valid=scored, train=scored_train, loss=model.loss, positive_fraction=0.5)
    evidence.auc.estimate, evidence.auc.standard_error, evidence.eer_gap.low
"""

from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

import numpy as np
from keras import ops

from keras_siamese import verification
from keras_siamese.diagnosis import health
from keras_siamese.diagnosis.trend import GOOD_EER, SHARED, find_flags, has_recovered, why_no_flags
from keras_siamese.scoring import ScoredTrials

BAD_EER = 0.25  # from which on a run without a target leaves something to explain
TOLD_APART = 0.10  # EER of identities that an encoder has learned
THREE_SIGMA = 0.99865  # the normal's probability below 3 standard deviations


class BelowChance(NamedTuple):
    """How far AUC lies below ½, in standard errors, and from how many on that is no chance (3 of a normal)."""

    errors: float
    critical: float

    @property
    def is_below(self):
        return self.errors > self.critical

    @property
    def is_above(self):
        return self.errors < -self.critical


@dataclass(eq=False)
class Evidence:
    """Facts about one run at one epoch.

    Attributes:
        history: curves `(epochs,)` by name: "loss" and, measured on held-out trials, "auc", "eer", "auc_se", "eer_se";
            NaN where not measured.
        valid: held-out trials, scored.
        train: trials of training identities, scored by the same weights, or None.
        loss: the loss object that the model was compiled with, or None.
        bounds: reachable range of the model's output, or None.
        output_kind: "distance" or "score".
        scale_free: whether the distance looks at directions alone.
        positive_fraction: share of genuine pairs among the training pairs, or None.
        data_similar_label: the label that means the same in the training pairs, or None.
        threshold: the score from which the user's accuracy accepts a pair, or None.
        target_eer: EER that the user wants, or None.
        epochs: epochs that the run was to have, or None.
        not_finite_since: index of the epoch from which on embeddings are not finite, or None; `valid` is older then.
        settings: what else a report should say, plain values by name.
    """

    history: dict
    valid: ScoredTrials
    train: ScoredTrials | None = None
    loss: object = None
    bounds: tuple | None = None
    output_kind: str = "distance"
    scale_free: bool = False
    positive_fraction: float | None = None
    data_similar_label: int | None = None
    threshold: float | None = None
    target_eer: float | None = None
    epochs: int | None = None
    not_finite_since: int | None = None
    settings: dict = field(default_factory=dict)

    @property
    def epoch(self):
        """Index of the last epoch, from 0; None without a history."""
        return len(self.history["loss"]) - 1 if self.history.get("loss") else None

    @cached_property
    def flags(self):
        """Epochs at which the run diverged; see `trend.find_flags`."""
        if self.epoch is None:
            return []
        return find_flags(self.history["loss"], **self._verification, target_eer=self.target_eer, epochs=self.epochs)

    @property
    def recovered(self):
        """Whether a flagged run has since verified better than before; see `trend.has_recovered`."""
        return bool(self.flags) and has_recovered(self.flags, **self._verification)

    @property
    def why_no_flags(self):
        """What the run lacks for a flag to be possible, in words; None if it lacks nothing."""
        if self.epoch is None:
            return "no history"
        known = {name: self._verification[name] for name in ("auc", "eer", "pairs")}
        return why_no_flags(self.history["loss"], **known, epochs=self.epochs)

    @property
    def _verification(self):
        curves = {name: self.history[name] for name in ("auc", "eer", "auc_se", "eer_se")}
        return curves | {"pairs": len(self.valid.trials)}

    @cached_property
    def intervals(self):
        """Identity-bootstrap intervals of the held-out AUC and EER."""
        return intervals(self.valid)

    @property
    def auc(self):
        return self.intervals["auc"]

    @property
    def eer(self):
        return self.intervals["eer"]

    @cached_property
    def train_intervals(self):
        """The same of the training trials, None without them."""
        return None if self.train is None else intervals(self.train)

    @cached_property
    def eer_gap(self):
        """`Interval` of EER(held-out) − EER(training identities), or None without training trials."""
        if self.train is None:
            return None
        return verification.difference(self.eer, self.train_intervals["eer"])

    @cached_property
    def below_chance(self):
        """`BelowChance` of the held-out pairs."""
        return below_chance(self.valid, self.auc)

    @cached_property
    def train_below_chance(self):
        """`BelowChance` of the training pairs, None without them."""
        return None if self.train is None else below_chance(self.train, self.train_intervals["auc"])

    @cached_property
    def balanced(self):
        """`(same, scores)` of a subset with as many genuine as impostor pairs."""
        rows = self.valid.trials.balanced()
        return self.valid.same[rows], self.valid.scores[rows]

    @cached_property
    def accuracy_se(self):
        """Standard error of an accuracy on the balanced subset, over identities."""
        rows = self.valid.trials.balanced()
        sides = [None if side is None else side[rows] for side in self.valid.trials.pair_identities]
        found = verification.bootstrap(["best_accuracy"], *self.balanced, *sides, samples=100)
        return found["best_accuracy"].standard_error

    @property
    def verifies_badly(self):
        """Whether the held-out EER wants explaining: above the target (or .25), or of a flagged run not recovered."""
        wanted = BAD_EER if self.target_eer is None else self.target_eer
        diverged = bool(self.flags) and not self.recovered
        return self.eer.estimate >= GOOD_EER and (diverged or self.eer.estimate > wanted)

    @property
    def told_apart(self):
        """Whether the training identities are told apart (EER below .1): training did its job. None if not known."""
        return None if self.train is None else self.train_intervals["eer"].estimate < TOLD_APART

    @cached_property
    def pair_losses(self):
        """`(genuine, impostor)` mean loss of a training pair of either kind, unweighted, or None where not known."""
        per_pair = getattr(self.loss, "per_pair", None)
        if per_pair is None or self.train is None or self.loss.expects != self.output_kind:
            return None
        same = self.train.same
        output = self.train.scores if self.output_kind == "score" else -self.train.scores
        inputs = ops.convert_to_tensor(same.astype("float32")), ops.convert_to_tensor(output)
        losses = ops.convert_to_numpy(per_pair(*inputs))
        return float(losses[same].mean()), float(losses[~same].mean())

    @property
    def weighted_fraction(self):
        """Genuine pairs' share of the weight in the loss: `positive_fraction`, shifted by class weights; or None."""
        if self.positive_fraction is None or getattr(self.loss, "class_weight", None) == "balanced":
            return None if self.positive_fraction is None else 0.5
        by_label = getattr(self.loss, "class_weight", None) or {0: 1.0, 1: 1.0}
        genuine = getattr(self.loss, "similar_label", 1)
        weights = [getattr(self.loss, f"{kind}_weight", 1.0) for kind in ("positive", "negative")]
        genuine_weight = self.positive_fraction * weights[0] * by_label[genuine]
        total = genuine_weight + (1 - self.positive_fraction) * weights[1] * by_label[1 - genuine]
        return genuine_weight / total if total else self.positive_fraction


def intervals(scored, samples=100):
    """Bootstrap intervals of AUC and EER over the identities of `scored`, over its pairs where they are not known."""
    return verification.bootstrap(
        ["auc", "eer"], scored.same, scored.scores, *scored.trials.pair_identities, samples=samples
    )


def quick_errors(scored):
    """Standard errors of AUC and EER for every epoch: over identities, where they are not known widened for them."""
    found = health.standard_errors(scored.same, scored.scores, *scored.trials.pair_identities)
    return {name: error * widening(scored.trials) for name, error in found.items()}


def widening(trials):
    """What a standard error over pairs is multiplied by: pairs of unknown identities are taken to share them."""
    return SHARED if trials.identities is None else 1.0


def count_identities(trials):
    """How many identities are compared, or None where they are not known."""
    sides = trials.pair_identities
    return None if sides[0] is None else len(np.unique(np.concatenate(sides)))


def below_chance(scored, auc):
    """`BelowChance` of `scored` trials with the `Interval` `auc`.

    With K identities the error has K − 1 degrees of freedom: two identities prove nothing, ten need 4.1 errors.
    """
    from scipy.special import stdtrit

    error = max(auc.standard_error, health.noise_error(scored.same)) * widening(scored.trials)
    identities = count_identities(scored.trials)
    critical = 3.0 if identities is None else float(stdtrit(identities - 1, THREE_SIGMA))
    return BelowChance((0.5 - auc.estimate) / error, critical)
