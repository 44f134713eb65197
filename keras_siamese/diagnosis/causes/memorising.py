"""Memorising: the encoder tells its training identities apart, but no others."""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.causes.base import Cause, NotExamined, RuledOut, Signal, change, signals_of


class Memorising(Cause):
    """The encoder tells the training identities apart, but not the held-out ones."""

    name = "memorising"
    stage = "generalisation"
    reads = ("gap", "train_eer")
    needs = "training samples with identities: DivergenceMonitor(…, train=(x, labels))"

    def judge(self, facts):
        identities = facts.get("identities")
        if identities is not None and identities < limits.FEW_IDENTITIES:
            needs = f"{limits.FEW_IDENTITIES:.0f} held-out identities or more; there are {identities:.0f}"
            return NotExamined(self.name, needs)
        trained, held_out, gap = facts["train_eer"], facts["eer"], facts["gap"]
        low, high = gap_interval(facts)
        bound = min(limits.TOLD_APART, held_out / limits.TIMES_BETTER)
        signals = {
            "eer_gap": Signal(gap, limits.GAP, 0.0, low, high),
            "eer": Signal(held_out),
            "train_eer": Signal(trained, bound),
        }
        signals |= signals_of(facts, train_identities=None, best_eer=None)
        if not (trained < bound and gap > limits.GAP and low > 0):
            return RuledOut(self.name, signals)
        return self.found(
            facts,
            "error" if facts["flagged"] or gap > limits.LARGE_EER_GAP else "warning",
            f"The encoder tells its training identities apart (EER {trained:.3f}), but not the held-out ones (EER "
            f"{held_out:.3f}): it has overfitted to its {facts.get('train_identities', 0):.0f} training identities.",
            signals,
            "ks.data.PairSequence(x, labels, augment=ks.data.image_augmenter(rotation_range=15, zoom_range=0.1))\n"
            'keras.callbacks.EarlyStopping("val_eer", mode="min", patience=5, restore_best_weights=True)\n'
            "# and more identities: more samples of the same few identities do not help with new ones",
            change(augment=True, early_stopping=True, identities=None),
            gap / limits.GAP,
        )


def gap_interval(facts):
    """95 % interval of the gap in EER, Student's with as many degrees of freedom as held-out identities less one."""
    from scipy.special import stdtrit  # imported here, since it is slow to import

    identities = facts.get("identities")
    reach = float(np.hypot(facts["eer_se"], facts["train_eer_se"]))
    reach *= limits.NORMAL_TAIL if identities is None else float(stdtrit(identities - 1, limits.UPPER_TAIL))
    return facts["gap"] - reach, facts["gap"] + reach
