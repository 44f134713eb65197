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
from keras_siamese.data.sources import take
from keras_siamese.diagnosis.facts import embeddings as health
from keras_siamese.diagnosis.facts import model as training
from keras_siamese.diagnosis.trend import GOOD_EER, SHARED, find_flags, has_recovered, why_no_flags
from keras_siamese.layers import SiameseWrapper
from keras_siamese.scoring import ScoredTrials, UnsharedTowers

BAD_EER = 0.25  # from which on a run without a target leaves something to explain
HEALTH = ("spread", "uniformity", "alignment", "effective_rank", "d_prime", "purity")  # every epoch
BATCH = 64  # samples that are drawn at a time from training data without batches of their own
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
        siamese: the `SiameseWrapper` over the model's layers, or None where only scores are known.
        source: training data: a sequence, or `(x, labels)`; None if not known.
        learning_rate: the optimizer's, or None.
        probed: what `training.probe` found, facts by name.
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
    siamese: SiameseWrapper | None = None
    source: object = None
    learning_rate: float | None = None
    probed: dict = field(default_factory=dict)

    @cached_property
    def facts(self):
        """`Facts`: every signal that can be measured, by name."""
        from keras_siamese.diagnosis.facts.measure import measure

        return measure(self)

    @property
    def is_unshared(self):
        """Whether the two inputs have encoders of their own."""
        return isinstance(self.siamese, UnsharedTowers)

    @property
    def is_sequence(self):
        """Whether the training data come in batches that can be asked for."""
        return hasattr(self.source, "__getitem__") and not isinstance(self.source, (tuple, list))

    @cached_property
    def batches(self):
        """Some training batches `(inputs, targets)` of the sequence, or drawn as they come from `(x, labels)`."""
        if self.is_sequence:
            batches = training.batches_of(self.source)
            return [
                batch for batch in batches if training.is_pairs(batch[0]) or not isinstance(batch[0], (tuple, list))
            ]
        if self.train is None or self.train.trials.identities is None:
            return []
        trials, rng = self.train.trials, np.random.default_rng(0)
        order = rng.permutation(len(trials.identities))
        parts = [np.sort(order[start : start + BATCH]) for start in range(0, min(len(order), 4 * BATCH), BATCH)]
        return [(take(trials.items, rows), trials.identities[rows]) for rows in parts if len(rows) > 1]

    @property
    def train_items(self):
        """All training samples, as far as they are known."""
        return getattr(self.source, "x", self.train.trials.items)

    @property
    def train_names(self):
        """The training identities as they were given, `train_names[codes]`, or None."""
        return None if self.train is None else self.train.trials.names

    @property
    def valid_names(self):
        return self.valid.trials.names if self.valid.trials.identities is not None else None

    @property
    def genuine_label(self):
        """The label that means the same in training batches of pairs."""
        return 1 if self.data_similar_label is None else self.data_similar_label

    @cached_property
    def drawn_counts(self):
        """How often samples of each training identity are shown in an epoch, `(K,)`, or None where it is not known."""
        source = self.source
        if hasattr(source, "pairs") and hasattr(source, "labels"):
            left, right, _ = source.pairs()
            return np.bincount(source.labels[np.concatenate([left, right])])
        if hasattr(source, "rows") and hasattr(source, "labels"):
            return np.bincount(source.labels[source.rows()].ravel())
        if isinstance(source, (tuple, list)) and len(source) == 2:
            return np.unique(np.asarray(source[1]), return_counts=True)[1]
        return None

    @cached_property
    def batch_identities(self):
        """How many identities one run of the encoder sees in a training batch, on average, or None."""
        source = self.source
        if hasattr(source, "pairs") and hasattr(source, "labels"):
            sides = [source.labels[rows] for rows in source.pairs()[:2]]
            if getattr(self.siamese, "joint", True):
                sides = [np.stack(sides, axis=1).ravel()]
            size = source.batch_size * (1 if len(sides) > 1 else 2)
            return min(
                float(np.mean([len(np.unique(side[at : at + size])) for at in range(0, len(side), size)]))
                for side in sides
            )
        return float(source.classes_per_batch) if hasattr(source, "classes_per_batch") else None

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


def health_of(scored):
    """What `DivergenceMonitor` keeps of the embeddings every epoch: `HEALTH` by name, NaN where it is not known."""
    z, trials = scored.embeddings, scored.trials
    genuine = trials.same
    found = dict.fromkeys(HEALTH, float("nan"))
    found |= {
        "spread": health.spread(z),
        "uniformity": health.uniformity(z),
        "effective_rank": health.effective_rank(z),
    }
    found["alignment"] = health.alignment(z, trials.left[genuine], trials.right[genuine])
    found["d_prime"] = verification.d_prime(scored.same, scored.scores)
    if trials.identities is not None and len(z) > 12:
        found["purity"] = health.purity(z, trials.identities, permutations=2)[0]
    return found


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
