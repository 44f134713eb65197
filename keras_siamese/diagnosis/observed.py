"""What is known of a run when it is judged: what happened, scored held-out and training trials, and its recipe.

Contract: `Observed` is the input of the diagnosis. It knows no cause. Its `facts` are measured when they are first
asked for; what several facts need (intervals, batches) is computed once and kept. Imports `run`, `scoring` and `facts`.

    observed = Observed(Run.of(history), valid=scored, train=scored_train, loss=model.loss, positive_fraction=0.5)
    observed.eer.estimate, observed.facts["spread"]
"""

from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np

from keras_siamese import verification
from keras_siamese._files import SideWork
from keras_siamese.data.sources import take
from keras_siamese.diagnosis.facts.batches import batches_of, is_pairs
from keras_siamese.diagnosis.facts.references import fitted, has_numbers
from keras_siamese.diagnosis.facts.table import measure
from keras_siamese.diagnosis.facts.training import untrained_copy
from keras_siamese.diagnosis.facts.verification import below_chance, intervals, loss_error, widening
from keras_siamese.diagnosis.run import ALWAYS, Run
from keras_siamese.diagnosis.trend import find_flags, has_recovered, verifies_badly, why_no_flags
from keras_siamese.losses.character import character_of
from keras_siamese.scoring import ScoredTrials

BATCH = 64  # samples that are drawn at a time from training data without batches of their own


@dataclass(eq=False)
class Observed:
    """One run at one epoch, as it is judged: its `Run`, scored trials, and what is known of its recipe."""

    run: Run
    valid: ScoredTrials  # held-out trials; if embeddings are not finite now, of the last epoch at which they were
    train: ScoredTrials | None = None  # trials of training identities, scored by the same weights
    loss: object = None  # the loss object that the model was compiled with
    bounds: tuple | None = None  # reachable range of the model's output
    output_kind: str = "distance"  # or "score"
    scale_free: bool = False  # whether the distance looks at directions alone
    positive_fraction: float | None = None  # share of genuine pairs among the training pairs
    data_similar_label: int | None = None  # the label that means "same" in the training pairs
    threshold: float | None = None  # the score from which the user's accuracy accepts a pair
    default_threshold: bool = False  # whether that is only what Keras's accuracy takes by default
    target_eer: float | None = None  # the EER that the user wants
    settings: dict = field(default_factory=dict)  # what else a report should say, plain values by name
    siamese: object = None  # the `Anatomy` of the model
    source: object = None  # training data: a sequence, or `(x, labels)`
    learning_rate: float | None = None  # the optimizer's
    probed: dict = field(default_factory=dict)  # what `facts.model.probe` found, facts by name
    still: tuple = ()  # names of the layers whose kernels have not moved since the run began
    fed: object = None  # `(x, y)` or batches as the model is trained on, from which steps can be taken again
    initial: dict | None = None  # values of the model's variables when the run began, `{id: array}`
    steps: int | None = None  # training steps in an epoch
    reference: object = None  # an encoder of the user's, with which the model is compared
    side: SideWork = field(default_factory=SideWork)  # is told of facts and causes that raise

    @property
    def history(self):
        """The curves of the run by name."""
        return self.run.curves

    @property
    def parts(self):
        """The curves of the measurements within epochs, with "step"; empty without any."""
        return self.run.parts

    @property
    def timeline(self):
        """`(places, unit, curves)` to draw: epochs, or training steps if only these tell something."""
        if self.parts and (self.epoch is None or (self.flags and self.flags[0].step is not None)):
            return self.parts["step"], "training step", self.parts
        return list(range(1, len(self.history["loss"]) + 1)), "epoch", self.history

    @property
    def not_finite_since(self):
        """Index of the first epoch since which embeddings are not finite, or None."""
        return self.run.not_finite_since

    @cached_property
    def facts(self):
        """`Facts`: every signal that can be measured, by name."""
        return measure(self)

    @cached_property
    def character(self):
        """`LossCharacter` of the loss. A loss from elsewhere is measured only if training is known to show it pairs."""
        return character_of(self.loss, "embedding" if self.positive_fraction is None else self.output_kind)

    @property
    def is_finite(self):
        """Whether the present embeddings are finite."""
        return self.not_finite_since is None and self.valid.is_finite

    @property
    def is_unshared(self):
        """Whether the two inputs have encoders of their own."""
        return getattr(self.siamese, "other", None) is not None

    @property
    def has_embeddings(self):
        """Whether the model compares embeddings, which can be looked at."""
        return getattr(self.siamese, "has_embeddings", True)

    @cached_property
    def untrained(self):
        """A copy of the encoder with new initial values, None if there is none; see `facts.training`."""
        if self.siamese is None or self.is_unshared or not self.has_embeddings:
            return None
        return untrained_copy(self.siamese.encoder, (self.valid if self.train is None else self.train).trials.items)

    @cached_property
    def linear(self):
        """A function from flat samples to linear features, fitted on the training pairs, or None; see
        `facts.references`.
        """
        if self.train is None or not has_numbers(self.valid.trials.items):
            return None
        return fitted(self.train.trials, self.valid.trials.items.shape[1:])

    @property
    def is_sequence(self):
        """Whether the training data come in batches that can be asked for."""
        return hasattr(self.source, "__getitem__") and not isinstance(self.source, (tuple, list))

    @cached_property
    def batches(self):
        """Some training batches `(inputs, targets)` of the sequence, or drawn as they come from `(x, labels)`."""
        if self.is_sequence:
            batches = batches_of(self.source)
            return [batch for batch in batches if is_pairs(batch[0]) or not isinstance(batch[0], (tuple, list))]
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

    @property
    def epoch(self):
        """Index of the last epoch, from 0; None without a history."""
        return len(self.history["loss"]) - 1 if self.history.get("loss") else None

    @cached_property
    def flags(self):
        """Epochs at which the run diverged; see `trend.find_flags`. Steps, if it diverged within an epoch only."""
        found, given = [], {"pairs": len(self.valid.trials), "target_eer": self.target_eer}
        if self.epoch is not None:
            found = find_flags(**self._curves(self.history), **given, epochs=self.run.epochs)
        if not found and self.parts:
            found = find_flags(**self._curves(self.parts), **given)
            found = [replace(flag, step=int(self.parts["step"][flag.epoch])) for flag in found]
        return found

    @property
    def recovered(self):
        """Whether a flagged run has since verified better than before; see `trend.has_recovered`."""
        if not self.flags:
            return False
        curves = self._curves(self.history if self.flags[0].step is None else self.parts)
        del curves["loss"]
        return has_recovered(self.flags, **curves, pairs=len(self.valid.trials))

    @property
    def why_no_flags(self):
        """What the run lacks for a flag to be possible, in words; None if it lacks nothing."""
        found = "no history"
        for curves, epochs in ((self.parts, None), (self.history, self.run.epochs)):
            if curves.get("loss"):
                known = {name: curves[name] for name in ("loss", "auc", "eer")}
                found = why_no_flags(**known, pairs=len(self.valid.trials), epochs=epochs)
            if found is None:
                break
        return found

    def _curves(self, curves):
        return {name: curves[name] for name in ALWAYS}

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
        """Standard error, over identities, of the accuracy that the threshold in use loses on the balanced subset."""
        rows, trials = self.valid.trials.balanced(), self.valid.trials
        sides = [None if side is None else side[rows] for side in trials.pair_identities]
        return loss_error(*self.balanced, self.threshold, self.valid.accuracy[1], *sides) * widening(trials)

    @property
    def verifies_badly(self):
        """Whether the held-out EER wants explaining; see `trend.verifies_badly`."""
        return verifies_badly(self.eer.estimate, self.flags, self.recovered, self.target_eer)


def latest_of(history):
    """The `Observed` that a monitor has last diagnosed, if `history` is one, or what `ks.fit` returned; else None."""
    diagnosis = getattr(getattr(history, "monitor", history), "diagnosis", None)
    seen = getattr(diagnosis, "observed", None)
    return seen if isinstance(seen, Observed) else None
