"""Threshold: the embedding ranks pairs well, but the accuracy uses a threshold on another scale."""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, NotExamined, RuledOut, Signal, change


class Threshold(Cause):
    """The embedding ranks pairs well, but the threshold of the accuracy does not fit the scores."""

    name = "threshold"
    stage = "decision"
    explains_flag = False
    reads = ("threshold",)
    needs = "the threshold in use: DivergenceMonitor(…, threshold=…)"

    def judge(self, facts):
        if "accuracy_lost" not in facts:
            return NotExamined(self.name, "more held-out pairs, so that a threshold can be chosen on other pairs")
        lost, best = facts["accuracy_lost"], facts["best_accuracy"]
        least = max(limits.ACCURACY_LOST, limits.ERRORS_WORSE * facts["accuracy_se"])
        signals = {
            "accuracy_lost": Signal(lost, least, 0.0),
            "best_accuracy": Signal(best),
            "threshold": Signal(facts["threshold"]),
        }
        if lost <= least:
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "warning",
            f"The threshold in use gives accuracy {best - lost:.3f}, while one chosen on other identities gives "
            f"{best:.3f}: the scores are on another scale.",
            signals,
            "verifier = ks.Verifier.calibrate(siamese, x_valid, labels_valid, far=0.01)\n"
            "print(verifier.evaluate(*test))",
            change(threshold=None),
            lost / least,
        )
