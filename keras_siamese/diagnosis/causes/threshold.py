"""Threshold: the embedding ranks pairs well, but the accuracy uses a threshold that does not fit the scores.

A threshold that the user has chosen should be nearly as good as the best one. Keras's default of ½ for probabilities
may lose a little more.
"""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, NotExamined, RuledOut, change, signals_of
from keras_siamese.verification.evidence import of_negatives


class Threshold(Cause):
    stage = "decision"
    explains_flag = False
    needs = (
        "the threshold in use: DivergenceMonitor(…, threshold=…), or the training data, train=…, and an accuracy among "
        "the logs of the run"
    )
    advice = (
        "verifier = ks.Verifier.calibrate(siamese, x_valid, labels_valid, far=0.01)\nprint(verifier.evaluate(*test))"
    )
    for_pairs = (
        "verifier = ks.Verifier.calibrate(siamese, ([left, right], y), far=0.01)\nprint(verifier.evaluate(test))"
    )

    of_shapes = (
        "def accuracy(y_true, y_pred):\n"
        "    y_true = keras.ops.reshape(y_true, keras.ops.shape(y_pred))\n"
        "    ...  # as before"
    )

    def judge(self, facts):
        logged = self.contradicted(facts)
        if logged is None and "threshold" not in facts:
            logged = self.contradicted_held_out(facts)
        if logged is not None:
            return logged
        if "threshold" not in facts:
            return NotExamined(self.name, self.needs)
        if "accuracy_lost" not in facts:
            return NotExamined(self.name, "more held-out pairs, so that a threshold can be chosen on other pairs")
        lost, best = facts["accuracy_lost"], facts["best_accuracy"]
        allowed = limits.ACCURACY_LOST if facts.get("default_threshold") else limits.CHOSEN_LOST
        least = max(allowed, limits.ERRORS_WORSE * facts["accuracy_se"])
        signals = signals_of(facts, accuracy_lost=(least, 0.0), best_accuracy=None, threshold=None)
        if lost <= least:
            return RuledOut(self.name, signals)
        what = (
            f"The threshold in use gives accuracy {best - lost:.3f}, while one chosen on other identities gives "
            f"{best:.3f}: the scores are on another scale."
        )
        if facts.words.get("output") == "distance":
            what += f" {of_negatives(facts['threshold'], 'distance' if facts.words.get('distance') else 'output')}"
        return self.found(facts, "warning", what, signals, lost / least, change(threshold=None), self.advised(facts))

    def contradicted(self, facts):
        """The finding that a logged accuracy contradicts how well the same pairs are told apart; None if it does not.

        The logged value is a mean over an epoch, and of all pairs. So it counts only if it is nearer to chance than to
        the best accuracy that a threshold gives.
        """
        if "logged_accuracy" not in facts or "train_best_accuracy" not in facts:
            return None
        logged, best = facts["logged_accuracy"], facts["train_best_accuracy"]
        allowed = (0.5 + best) / 2
        is_ranked = facts.get("train_eer", 1.0) < limits.BAD_EER and facts["eer"] < limits.BAD_EER
        if logged >= allowed or not is_ranked:
            return None
        signals = signals_of(
            facts,
            logged_accuracy=(float(allowed), 0.5),
            train_best_accuracy=None,
            accuracy_at_half=None,
            accuracy_mixed=None,
            train_auc=None,
            auc=None,
        )
        what = (
            f"The logged accuracy is {logged:.3f}, although a threshold that fits the scores gives {best:.3f} on the "
            f"same pairs: {reason(facts, logged, allowed)}"
        )
        strength = (best - logged) / limits.ACCURACY_LOST
        advice = self.advised(facts, logged, allowed)
        return self.found(facts, "error", what, signals, strength, change(threshold=None), advice)

    def contradicted_held_out(self, facts):
        """The same of the validation data, where the training pairs are not known. The monitor may have been given
        other pairs than `fit`, so this is a warning.
        """
        if "logged_val_accuracy" not in facts or "val_best_accuracy" not in facts:
            return None
        logged, best = facts["logged_val_accuracy"], facts["val_best_accuracy"]
        allowed = (0.5 + best) / 2
        if logged >= allowed or facts["eer"] >= limits.BAD_EER:
            return None
        signals = signals_of(facts, logged_val_accuracy=(float(allowed), 0.5), val_best_accuracy=None)
        signals |= signals_of(facts, accuracy_at_half=None, accuracy_mixed=None, auc=None)
        what = (
            f"The logged accuracy of the validation data is {logged:.3f}, although a threshold that fits the scores "
            f"gives {best:.3f} on held-out pairs: {reason(facts, logged, allowed)}"
        )
        strength = (best - logged) / limits.ACCURACY_LOST
        advice = self.advised(facts, logged, allowed)
        return self.found(facts, "warning", what, signals, strength, change(threshold=None), advice)

    def advised(self, facts, logged=1.0, allowed=0.5):
        """The advice, for items with identities or for pairs; or for a metric that mixes pairs up."""
        if mixes_up(facts, logged, allowed):
            return self.of_shapes
        return self.advice if "identities" in facts else self.for_pairs


def mixes_up(facts, logged, allowed):
    """Whether an output of ½ decides well, and what was `logged` is the accuracy of each label with all outputs."""
    is_mixed = abs(logged - facts.get("accuracy_mixed", 1.0)) < limits.MIXED
    return is_mixed and logged < allowed <= facts["accuracy_at_half"]


def reason(facts, logged, allowed):
    """What the metric of a `logged` accuracy below `allowed` does, as the end of a sentence."""
    if 1 - logged > allowed:
        return "the metric calls genuine pairs different."
    if mixes_up(facts, logged, allowed):
        return (
            f"the threshold 0.5 gives {facts['accuracy_at_half']:.3f}, so the metric does not compare each label with "
            "its own output. Keras gives a function labels (n,) beside outputs (n, 1), and NumPy's rules make (n, n) "
            "of them."
        )
    return "the metric uses a threshold that does not fit the scores."
