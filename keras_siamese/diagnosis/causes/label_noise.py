"""Label noise: more of the genuine training pairs than of the held-out ones score as impostors do, so labels are wrong.

An encoder tells its own identities apart better than new ones, so with correct labels the share is smaller in training.
This holds only for an encoder that training has changed: one that is frozen, or hardly moves, treats both alike. Noise
on both sides cannot be seen in this way; the encoder then verifies badly for no visible reason.
"""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, RuledOut, Signal, change, is_imperfect, signals_of


class LabelNoise(Cause):
    stage = "labels"
    reads = ("impostor_like", "train_eer")
    needs = "training samples with identities: DivergenceMonitor(…, train=(x, labels))"
    advice = (
        "suspects = monitor.diagnosis.facts.rows['suspected_labels']  # rows of the training data\n"
        "x, labels = np.delete(x, suspects, 0), np.delete(labels, suspects)  # or look at them and correct them"
    )

    def judge(self, facts):
        share, null = facts["impostor_like"], facts.get("impostor_like_held_out", 0.0)
        error = float(np.hypot(facts["impostor_like_se"], facts.get("impostor_like_held_out_se", 0.0)))
        reach = limits.ERRORS_WORSE * error
        low, high = max(share - reach, 0.0), min(share + reach, 1.0)
        least = null + limits.LABEL_EXCESS
        signals = {"impostor_like_genuine_pairs": Signal(share, least, null, low, high)}
        signals |= signals_of(facts, train_eer=None, eer=None, suspected_labels=None)
        learned = facts["eer"] - facts["train_eer"] > limits.TRAINED_BETTER
        changed = min(facts.get("trainable_share", 1.0), facts.get("moved_share", 1.0)) >= limits.FROZEN
        changed = changed and facts.get("update_size_largest", 1.0) >= limits.SMALL_UPDATE
        if not is_imperfect(facts) or low <= null or share <= least or learned or not changed:
            return RuledOut(self.name, signals)
        what = (
            f"{share:.1%} of the genuine training pairs score as impostors do, but only {null:.1%} of the held-out "
            f"ones, and training identities (EER {facts['train_eer']:.3f}) verify no better than held-out ones (EER "
            f"{facts['eer']:.3f}): labels are wrong."
        )
        severity = "error" if share > limits.TWICE * least else "warning"
        return self.found(facts, severity, what, signals, share / least, change(label_noise=0.0))
