"""Memorising: the encoder tells its training identities apart, but not the held-out ones."""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import AUGMENT, for_samples
from keras_siamese.diagnosis.causes.base import (
    TRAINING_DATA,
    Cause,
    NotExamined,
    RuledOut,
    Signal,
    change,
    shown_are_easy,
    signals_of,
)


class Memorising(Cause):
    stage = "generalisation"
    reads = ("gap", "train_eer")
    needs = TRAINING_DATA
    advice = (
        "# augmentation\n"
        f"{AUGMENT['images']}\n"
        "train = ks.data.PairSequence(x, labels, augment=augment)\n"
        "# and early stopping, by a callback after the monitor\n"
        'stop = keras.callbacks.EarlyStopping("val_eer", mode="min", patience=5, restore_best_weights=True)\n'
        "# and more identities: more samples of the same few identities do not help with new ones"
    )

    def judge(self, facts):
        few, identities = limits.FEW_IDENTITIES, facts.get("identities")
        if identities is not None and identities < few:
            return NotExamined(self.name, f"{few:.0f} held-out identities or more; there are {identities:.0f}")
        trained, held_out, gap = facts["train_eer"], facts["eer"], facts["gap"]
        low, high = gap_interval(facts)
        bound = min(limits.TOLD_APART, held_out / limits.TIMES_BETTER)
        signals = {"eer_gap": Signal(gap, limits.GAP, 0.0, low, high)}
        signals |= signals_of(facts, eer=None, train_eer=bound, train_identities=None, best_eer=None)
        signals |= signals_of(facts, identities_gain=(limits.CONFIRMED_GAIN, 0.0))
        # A gap is usual. It is no fault if it is small and held-out identities share most of what training has gained.
        untrained = facts.get("untrained_eer", held_out)
        shared = untrained - held_out > limits.SHARED_GAIN * (untrained - trained)
        is_shared = not facts["flagged"] and gap <= limits.LARGE_EER_GAP and shared
        signals |= signals_of(facts, crossed_eer=(limits.BAD_EER, trained))
        if shown_are_easy(facts) or trained >= bound or gap <= limits.GAP or low <= 0 or is_shared:
            return RuledOut(self.name, signals)
        count = f"{facts['train_identities']:.0f} " if "train_identities" in facts else ""
        what = (
            f"The encoder tells its training identities apart (EER {trained:.3f}), but not the held-out ones (EER "
            f"{held_out:.3f}): it has overfitted to its {count}training identities."
        )
        if facts.get("identities_gain_low", 0.0) > 0:
            what += f" Training on half of them costs {facts['identities_gain']:.3f} of EER: more identities will help."
        severity = "error" if facts["flagged"] or gap > limits.LARGE_EER_GAP else "warning"
        repair = change(augment=True, early_stopping=True, identities=None)
        return self.found(facts, severity, what, signals, gap / limits.GAP, repair, for_samples(self.advice, facts))


def gap_interval(facts):
    """95 % interval of the gap in EER, Student's with as many degrees of freedom as held-out identities less one."""
    from scipy.special import ndtri, stdtrit  # imported here, since it is slow to import

    identities = facts.get("identities")
    reach = float(np.hypot(facts["eer_se"], facts["train_eer_se"]))
    reach *= float(ndtri(limits.UPPER_TAIL) if identities is None else stdtrit(identities - 1, limits.UPPER_TAIL))
    return facts["gap"] - reach, facts["gap"] + reach
