"""Threshold: the embedding ranks pairs well, but the accuracy uses a threshold that does not fit the scores."""

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, NotExamined, RuledOut, change, signals_of


class Threshold(Cause):
    stage = "decision"
    explains_flag = False
    reads = ("threshold",)
    needs = "the threshold in use: DivergenceMonitor(…, threshold=…)"
    advice = (
        "verifier = ks.Verifier.calibrate(siamese, x_valid, labels_valid, far=0.01)\nprint(verifier.evaluate(*test))"
    )

    def judge(self, facts):
        if "accuracy_lost" not in facts:
            return NotExamined(self.name, "more held-out pairs, so that a threshold can be chosen on other pairs")
        lost, best = facts["accuracy_lost"], facts["best_accuracy"]
        least = max(limits.ACCURACY_LOST, limits.ERRORS_WORSE * facts["accuracy_se"])
        signals = signals_of(facts, accuracy_lost=(least, 0.0), best_accuracy=None, threshold=None)
        if lost <= least:
            return RuledOut(self.name, signals)
        what = (
            f"The threshold in use gives accuracy {best - lost:.3f}, while one chosen on other identities gives "
            f"{best:.3f}: the scores are on another scale."
        )
        return self.found(facts, "warning", what, signals, lost / least, change(threshold=None))
