"""Leakage: held-out data contain samples, or identities, that training has seen, so their figures are too good.

Equal names on both sides are no proof, since both sides may have been numbered from 0. So samples with equal names must
also be nearer to each other, across the sides, than samples with different names.
"""

import numpy as np

from keras_siamese.diagnosis import limits
from keras_siamese.diagnosis.advice import trains_on_pairs
from keras_siamese.diagnosis.causes.base import (
    ARRAYS,
    TRAINING_DATA,
    Cause,
    RuledOut,
    change,
    is_training_known,
    signals_of,
)


class Leakage(Cause):
    stage = "data"
    explains_flag = False
    reads = ("duplicates",)  # or "shared_names"
    needs = TRAINING_DATA
    advice = (
        "train, valid, test = ks.data.split_identities(x, labels, (0.7, 0.15, 0.15), seed=0)\n"
        "print(ks.data.check_leakage(train, valid))"
    )

    def lacking(self, facts):
        return ARRAYS if is_training_known(facts) else TRAINING_DATA

    def examine(self, facts):
        return self.judge(facts) if "shared_names" in facts else super().examine(facts)

    def judge(self, facts):
        copied, alike = facts.get("duplicates", 0.0), facts.get("near_duplicates", 0.0)
        names = facts.get("shared_names", 0.0)
        signals = signals_of(facts, duplicates=(limits.DUPLICATES, 0.0), near_duplicates=(limits.NEAR_DUPLICATES, 0.0))
        # Of K identities that have nothing in common the AUC is ½ ± √(1/12K), as of K uniform ranks.
        error = np.sqrt(1 / (12 * max(names, 1.0)))
        least = max(limits.SHARED_AUC, 0.5 + limits.SIGMAS * error)
        signals |= signals_of(facts, shared_names=(0.0, 0.0), shared_auc=(float(least), 0.5))
        has_copies = copied > limits.DUPLICATES or alike > limits.NEAR_DUPLICATES
        parts = []
        if names > 0 and facts.get("shared_auc", 0.5) > least:
            parts.append(f"{names:.0f} identities are on both sides")
        if has_copies:
            parts.append(f"{copied + alike:.1%} of the held-out samples are, or nearly are, training samples")
        if not parts:
            return RuledOut(self.name, signals)
        what = f"{' and '.join(parts)}: the held-out figures are too good, since training has seen these data."
        return self.found(facts, "error", what, signals, limits.STRONGEST, change(leak=None), self.advised(facts))

    def advised(self, facts):
        """The split as lines of code; of pairs, also how they are made after it."""
        if not trains_on_pairs(facts):
            return self.advice
        option = ", similar_label=0" if facts.get("same_label") == 0 else ""
        return (
            "# split the samples before they are paired, by identity, and make pairs within each part\n"
            "train, valid = ks.data.split_identities(x, labels, (0.8, 0.2), seed=0)\n"
            "print(ks.data.check_leakage(train, valid))\n"
            "monitor = ks.callbacks.DivergenceMonitor(valid)\n"
            f"siamese.fit(ks.data.PairSequence(*train{option}), epochs=20, callbacks=[monitor])"
        )
