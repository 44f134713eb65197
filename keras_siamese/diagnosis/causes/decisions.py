"""Causes in how embeddings are compared: the distance, and the threshold."""

from keras_siamese.diagnosis.causes.base import Cause, NotExamined, RuledOut, Signal, change, is_imperfect


class WrongDistance(Cause):
    """The embedding tells identities apart under another distance than the one that verification uses."""

    name = "wrong_distance"
    reads = ("swap_gain", "eer_cosine", "eer_euclidean")
    needs = "embeddings to compare by another distance"
    explains = ("weak_features", "memorising", "collapse", "margin")

    def judge(self, facts):
        gain, low = facts["swap_gain"], facts["swap_gain_low"]
        better = min(("cosine", "euclidean"), key=lambda name: facts[f"eer_{name}"])
        signals = {
            "eer": Signal(facts["eer"]),
            f"eer_{better}": Signal(facts[f"eer_{better}"]),
            "eer_gained": Signal(gain, 0.02, 0.0, low, gain + (gain - low)),
            "norm_variation": Signal(facts["norm_variation"]),
        }
        if gain <= 0.02 or low <= 0.01 or not is_imperfect(facts):
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "error" if gain > 0.06 else "warning",
            f"The same embeddings verify better by {better} (EER {facts[f'eer_{better}']:.3f}) than by "
            f"{facts.words['distance'] or 'the distance in use'} (EER {facts['eer']:.3f}).",
            signals,
            f'siamese = ks.SiameseWrapper(encoder, distance="{better}")  # train and verify by the same\n'
            "keras.Sequential([..., keras.layers.UnitNormalization()])  # or let norms not matter",
            lambda recipe: (
                {**recipe, "distance": better, "verify_distance": better}
                | ({"normalize": True} if better == "cosine" else {})
            ),
            gain / 0.02,
        )


class Threshold(Cause):
    """The embedding ranks pairs well; the accuracy uses a threshold that does not fit the scores."""

    name = "threshold"
    explains_flag = False
    reads = ("threshold",)
    needs = "the threshold in use: DivergenceMonitor(…, threshold=…)"

    def judge(self, facts):
        if "accuracy_lost" not in facts:
            return NotExamined(self.name, "more held-out pairs, to choose a threshold on others")
        lost, best = facts["accuracy_lost"], facts["best_accuracy"]
        least = max(0.03, 2 * facts["accuracy_se"])
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
            f"The threshold in use gives accuracy {best - lost:.3f} where one chosen on other identities gives "
            f"{best:.3f}: the scores are on another scale.",
            signals,
            "verifier = ks.Verifier.calibrate(siamese, x_valid, labels_valid, far=0.01)\n"
            "print(verifier.evaluate(*test))",
            change(threshold=None),
            lost / least,
        )
